"""A rule of a mapping file of statements of reasons, for tests."""

RULE = {
    "ground": "incompatible",
    "reference": "Terms, 4.2",
    "explanation": "No weapons.",
    "category": "STATEMENT_CATEGORY_VIOLENCE",
}

"""The mapping file of statements of reasons: checks and lists -> ground, category, territory, in the words of the
EU's DSA transparency database (https://transparency.dsa.ec.europa.eu/page/api-documentation, its second version, which
counts since July 2025).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from moderation.config.files import read_yaml
from moderation.config.hints import did_you_mean
from moderation.config.load import validate
from moderation.errors import UsageError
from moderation.policy.model import Policy
from moderation.policy.section import PolicySection

CATEGORIES: Final = tuple(
    f"STATEMENT_CATEGORY_{name}"
    for name in (
        "ANIMAL_WELFARE", "CONSUMER_INFORMATION", "CYBER_VIOLENCE", "CYBER_VIOLENCE_AGAINST_WOMEN",
        "DATA_PROTECTION_AND_PRIVACY_VIOLATIONS", "ILLEGAL_OR_HARMFUL_SPEECH", "INTELLECTUAL_PROPERTY_INFRINGEMENTS",
        "NEGATIVE_EFFECTS_ON_CIVIC_DISCOURSE_OR_ELECTIONS", "NOT_SPECIFIED_NOTICE", "OTHER_VIOLATION_TC",
        "PROTECTION_OF_MINORS", "RISK_FOR_PUBLIC_SECURITY", "SCAMS_AND_FRAUD", "SELF_HARM",
        "UNSAFE_AND_PROHIBITED_PRODUCTS", "VIOLENCE",
    )
)  # fmt: skip
VISIBILITIES: Final = tuple(
    f"DECISION_VISIBILITY_{name}"
    for name in (
        "CONTENT_REMOVED", "CONTENT_DISABLED", "CONTENT_DEMOTED", "CONTENT_AGE_RESTRICTED",
        "CONTENT_INTERACTION_RESTRICTED", "CONTENT_LABELLED", "OTHER",
    )
)  # fmt: skip
KEYWORDS: Final = tuple(
    f"KEYWORD_{name}"
    for name in (
        "ADULT_SEXUAL_MATERIAL", "AGE_SPECIFIC_RESTRICTIONS", "AGE_SPECIFIC_RESTRICTIONS_MINORS", "ANIMAL_HARM",
        "BIOMETRIC_DATA_BREACH", "BULLYING_AGAINST_GIRLS", "CHILD_SEXUAL_ABUSE_MATERIAL",
        "CHILD_SEXUAL_ABUSE_MATERIAL_DEEPFAKE", "CONTENT_PROMOTING_EATING_DISORDERS", "COORDINATED_HARM",
        "COPYRIGHT_INFRINGEMENT", "CYBER_BULLYING_INTIMIDATION", "CYBER_HARASSMENT",
        "CYBER_HARASSMENT_AGAINST_WOMEN", "CYBER_INCITEMENT", "CYBER_STALKING", "CYBER_STALKING_AGAINST_WOMEN",
        "DATA_FALSIFICATION", "DEFAMATION", "DESIGN_INFRINGEMENT", "DISCRIMINATION",
        "FEMALE_GENDERED_DISINFORMATION", "GEOGRAPHICAL_REQUIREMENTS", "GEOGRAPHIC_INDICATIONS_INFRINGEMENT",
        "GOODS_SERVICES_NOT_PERMITTED", "GROOMING_SEXUAL_ENTICEMENT_MINORS", "HATE_SPEECH",
        "HIDDEN_ADVERTISEMENT", "HUMAN_EXPLOITATION", "HUMAN_TRAFFICKING", "ILLEGAL_ORGANIZATIONS",
        "IMPERSONATION_ACCOUNT_HIJACKING", "INAUTHENTIC_ACCOUNTS", "INAUTHENTIC_LISTINGS",
        "INAUTHENTIC_USER_REVIEWS", "INCITEMENT_AGAINST_WOMEN", "INCITEMENT_VIOLENCE_HATRED",
        "INSUFFICIENT_INFORMATION_ON_TRADERS", "LANGUAGE_REQUIREMENTS", "MISINFORMATION_DISINFORMATION",
        "MISLEADING_INFO_CONSUMER_RIGHTS", "MISLEADING_INFO_GOODS_SERVICES", "MISSING_PROCESSING_GROUND",
        "NONCOMPLIANCE_PRICING", "NON_CONSENSUAL_IMAGE_SHARING", "NON_CONSENSUAL_IMAGE_SHARING_AGAINST_WOMEN",
        "NON_CONSENSUAL_MATERIAL_DEEPFAKE", "NON_CONSENSUAL_MATERIAL_DEEPFAKE_AGAINST_WOMEN", "NUDITY",
        "PATENT_INFRINGEMENT", "PHISHING", "PROHIBITED_PRODUCTS", "PYRAMID_SCHEMES", "RIGHT_TO_BE_FORGOTTEN",
        "RISK_ENVIRONMENTAL_DAMAGE", "RISK_PUBLIC_HEALTH", "SELF_MUTILATION", "STALKING", "SUICIDE",
        "TERRORIST_CONTENT", "TRADEMARK_INFRINGEMENT", "TRADE_SECRET_INFRINGEMENT", "TRAFFICKING_WOMEN_GIRLS",
        "UNLAWFUL_SALE_ANIMALS", "UNSAFE_CHALLENGES", "UNSAFE_PRODUCTS", "VIOLATION_EU_LAW",
        "VIOLATION_NATIONAL_LAW",
    )
)  # fmt: skip
SOURCES: Final = ("SOURCE_ARTICLE_16", "SOURCE_TRUSTED_FLAGGER", "SOURCE_TYPE_OTHER_NOTIFICATION", "SOURCE_VOLUNTARY")
# The European Economic Area, which the database takes; Greece is GR there.
EEA: Final = (
    "AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU", "IE", "IS", "IT", "LI", "LT",
    "LU", "LV", "MT", "NL", "NO", "PL", "PT", "RO", "SE", "SI", "SK",
)  # fmt: skip
EU: Final = tuple(country for country in EEA if country not in ("IS", "LI", "NO"))


class StatementRule(PolicySection):
    """What a statement says of items that one check or list restricted."""

    ground: Literal["illegal", "incompatible"] = Field(description="with the law, or with the terms of service")
    reference: str = Field(min_length=1, max_length=500, description="the law's or the terms' place: `Terms, 4.2`")
    explanation: str = Field(min_length=1, max_length=2000, description="why such content is that")
    category: str
    keywords: tuple[str, ...] = Field(default=(), max_length=20, description="KEYWORD_..., as the database has them")
    also_illegal: bool = Field(default=False, description="of incompatible: it is held to be illegal, too")
    visibility: tuple[str, ...] = Field(default=(VISIBILITIES[0],), min_length=1)

    @model_validator(mode="after")
    def _check_words(self) -> Self:
        _one_of("category", (self.category,), CATEGORIES)
        _one_of("visibility", self.visibility, VISIBILITIES)
        if "DECISION_VISIBILITY_OTHER" in self.visibility:
            raise ValueError("visibility: OTHER needs a text of its own, which this file has no key for")
        if "KEYWORD_OTHER" in self.keywords:
            raise ValueError("keywords: KEYWORD_OTHER needs a text of its own, which this file has no key for")
        _one_of("keywords", self.keywords, KEYWORDS)
        return self


class StatementMap(PolicySection):
    """All of a mapping file. default: of items without a rule of their own, as what a reviewer alone decided."""

    platform: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="begins every id of a statement")
    territory: tuple[str, ...] | Literal["EU", "EEA"] = Field(description="countries, or EU, or EEA")
    content_date: str = Field(description="attribute with the day when the content was uploaded: 2026-12-31")
    source_type: str = Field(default="SOURCE_VOLUNTARY")
    default: StatementRule | None = None
    checks: Mapping[str, StatementRule] = Field(default={})
    lists: Mapping[str, StatementRule] = Field(default={})

    @model_validator(mode="after")
    def _check_words(self) -> Self:
        _one_of("source_type", (self.source_type,), SOURCES)
        if not isinstance(self.territory, str):
            if not self.territory:
                raise ValueError("territory: no country; name some, or write EU or EEA")
            for word in {"EU", "EEA"}.intersection(self.territory):
                raise ValueError(f"territory: {word} is not a country: write `territory: {word}`, without brackets")
            _one_of("territory", self.territory, EEA)
        return self

    @property
    def countries(self) -> tuple[str, ...]:
        """Country codes, sorted."""
        if isinstance(self.territory, str):
            return EU if self.territory == "EU" else EEA
        return tuple(sorted(set(self.territory)))

    def rule_for(self, check: str | None, reason: str | None, words: Sequence[str] = ()) -> StatementRule | None:
        """The rule of a row: of what reviewers called it, of its check, of the list that decided, or the default."""
        said = next((word for word in words if word in self.checks), None)
        if said is not None:
            return self.checks[said]
        kind, _, rest = (reason or "").partition(":")
        if kind == "list":
            return self.lists.get(rest.partition(":")[0], self.default)
        return self.checks.get(check or "", self.default)


def read_statement_map(path: Path, policy: Policy | None = None) -> StatementMap:
    """Read a mapping file. policy: whose checks and lists it must know, unless it has a default.

    Raises UsageError naming each wrong key, and the nearest right one.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such mapping file; docs/records.md has an example")
    mapping = validate(StatementMap, read_yaml(path), where=str(path))
    problems = [] if policy is None else list(_unfit(mapping, policy))
    if problems:
        raise UsageError("\n".join(f"{path}: {problem}" for problem in problems))
    return mapping


def _unfit(mapping: StatementMap, policy: Policy) -> Iterator[str]:
    blocking = [name for name, check in policy.checks.items() if check.block is not None]
    for key, given, known in (
        ("checks", mapping.checks, tuple(policy.checks)),
        ("lists", mapping.lists, tuple(policy.lists)),
    ):
        for name in given:
            if name not in known:
                yield f"{key}: the policy has no {name!r}{did_you_mean(name, known)}"
    missing = [name for name in blocking if name not in mapping.checks]
    if missing and mapping.default is None:
        yield f"checks: nothing for {', '.join(missing)}, which the policy lets block; name them, or give a `default`"


def _one_of(key: str, words: Sequence[str], known: Sequence[str]) -> None:
    for word in words:
        if word not in known:
            raise ValueError(f"{key}: no {word!r}{did_you_mean(word, known)}")

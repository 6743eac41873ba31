"""The 1000 classes of ImageNet by name, and the groups of them that stand for concepts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from moderation.config.hints import closest, did_you_mean
from moderation.detectors.weights.locator import package_file
from moderation.errors import UsageError

# Groups where the configuration names none: things that a reviewer may want to see first. First names of the classes.
DEFAULT_CONCEPTS: Final[Mapping[str, Sequence[str]]] = {
    "weapon": ("assault rifle", "revolver", "rifle", "holster", "cannon", "n03773504", "n04008634", "tank"),
    "swimwear": ("bikini", "n03710637", "n03710721", "swimming trunks", "sarong"),
    "underwear": ("brassiere",),
    "alcohol": ("beer bottle", "beer glass", "wine bottle", "red wine", "cocktail shaker", "whiskey jug"),
    "blade": ("cleaver", "letter opener", "hatchet", "scabbard"),
    "medical": ("syringe", "pill bottle", "stretcher", "neck brace"),
    "printed": ("web site", "comic book", "menu", "book jacket", "crossword puzzle"),
}


@lru_cache(maxsize=1)
def class_names() -> tuple[tuple[str, ...], ...]:
    """The names of the 1000 classes, in order: synset id, then the words of WordNet.

    Read from files of the package timm, without importing it (its import takes 14 s on two slow cores).
    """
    folder = "data/_info"
    synsets = package_file("timm", f"{folder}/imagenet_synsets.txt").read_text(encoding="utf-8").split()
    lines = package_file("timm", f"{folder}/imagenet_synset_to_lemma.txt").read_text(encoding="utf-8").splitlines()
    words = dict(line.split("\t", 1) for line in lines if "\t" in line)
    return tuple((synset, *(word.strip() for word in words[synset].split(","))) for synset in synsets)


def class_indices(group: str, names: Sequence[str]) -> tuple[int, ...]:
    """Indices of the classes of a concept group, sorted, unique.

    Raises UsageError for an unknown name (names the nearest) or an ambiguous one (names the ids).
    """
    if isinstance(names, str) or not isinstance(names, Sequence) or not names:
        raise UsageError(f"detector 'imagenet': concept {group!r} must be a list of class names")
    return tuple(sorted({_class_index(group, name) for name in names}))


def _class_index(group: str, name: str) -> int:
    wanted = str(name).lower().replace("_", " ")
    by_word = _classes_by_word()
    indices = by_word.get(wanted, ())
    # A class with this name in first place wins over classes that list it as another word.
    indices = [i for i in indices if class_names()[i][1].lower() == wanted] or indices
    if not indices:
        close = closest(wanted, by_word, cutoff=0.5)
        hint = f"; did you mean {close!r}?" if close else ""
        raise UsageError(f"detector 'imagenet': concept {group!r}: no class is called {name!r}{hint}")
    if len(indices) > 1:
        ids = ", ".join(f"{class_names()[i][0]} ({', '.join(class_names()[i][1:])})" for i in indices)
        raise UsageError(f"detector 'imagenet': concept {group!r}: {name!r} may be {ids}; give the id")
    return indices[0]


@lru_cache(maxsize=1)
def _classes_by_word() -> Mapping[str, Sequence[int]]:
    """A synset id or word of WordNet, in lower case -> the classes with it."""
    by_word: dict[str, list[int]] = defaultdict(list)
    for index, entry in enumerate(class_names()):
        for word in dict.fromkeys(word.lower() for word in entry):
            by_word[word].append(index)
    return dict(by_word)


def search_classes(text: str) -> tuple[tuple[str, ...], ...]:
    """The classes of which an id or a word holds `text`, in order; all for an empty one.

    Raises UsageError where there is none, naming the nearest word.
    """
    wanted = text.lower().replace("_", " ").strip()
    matching = tuple(entry for entry in class_names() if any(wanted in word.lower() for word in entry))
    if not matching:
        raise UsageError(f"no class is called {text!r}{did_you_mean(wanted, _classes_by_word(), otherwise='')[:200]}")
    return matching

"""Writes jaxvision/pretrained/imagenet_classes.txt: a line a class, its WordNet id and its name.

python tests/golden/make_imagenet_classes.py data.noun, with tensorflow_datasets installed and WordNet 3.0's data.noun
(Debian's package wordnet-base). A class is named by the first word of its synset; where two classes share it, the first
word of the synset above follows in brackets.
"""

import importlib.util
import sys
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent


def wordnet_ids():
    found = importlib.util.find_spec("tensorflow_datasets")
    labels = Path(found.origin).parent / "datasets" / "imagenet2012" / "labels.txt"
    ids = labels.read_text(encoding="utf-8").split()
    assert ids == sorted(ids)
    assert len(set(ids)) == 1000
    return ids


def synsets(data_noun):
    """The first word of every noun, and the synset above it, by its number."""
    found = {}
    for line in Path(data_noun).read_text(encoding="utf-8").splitlines():
        if line[0] != " ":
            fields = line.partition(" | ")[0].split()
            above = next((fields[i + 1] for i, field in enumerate(fields) if field in ("@", "@i")), None)
            found[fields[0]] = (fields[4].replace("_", " "), above)
    return found


def main(data_noun):
    ids, nouns = wordnet_ids(), synsets(data_noun)
    first = {wordnet_id: nouns[wordnet_id[1:]] for wordnet_id in ids}
    uses = Counter(name.lower() for name, _ in first.values())
    lines = []
    for wordnet_id, (name, above) in first.items():
        shared = f" ({nouns[above][0]})" if uses[name.lower()] > 1 else ""
        lines.append(f"{wordnet_id} {name}{shared}\n")
    target = HERE.parent.parent / "jaxvision" / "pretrained" / "imagenet_classes.txt"
    target.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])

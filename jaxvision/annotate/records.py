"""Records: what is known of each image of a folder, who said it, and what a person has looked at.

Boxes are `x0 y0 x1 y1` in pixels of the upright image file, `x1 y1` exclusive.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from jaxvision.formats.annotation import Box
from jaxvision.formats.image_file import Size
from jaxvision.formats.labelled import Segmentation, Value

Verdict = Literal["new", "accepted", "rejected"]
"""What was decided of an object: nothing yet, that it is right, that it is wrong. Rejected ones are kept, never exported."""
State = Literal["new", "accepted", "reviewed"]
"""How far an image is: new; every guess above the threshold of a promise, and few objects missed in such images; or a person
has looked at all of it."""


class Source(NamedTuple):
    """Model that found an object."""

    model: str
    """Workdir of its run, or name of its published weights, as it was given."""
    checkpoint: str
    """Digest of its variables."""
    settings: str = "{}"
    """Settings of the prediction, as JSON with sorted keys."""


class Annotation(NamedTuple):
    """Object of an image, or with a box of the whole image the class of a classifier."""

    id: int
    """Its number in the image, from 1; never used again for another object."""
    label: str
    box: Box
    segmentation: Segmentation | None = None
    score: float | None = None
    """Confidence of the model, as it gave it; None where a person drew it."""
    probability: float | None = None
    """Calibrated probability that class and place are right; None where nothing was calibrated."""
    attributes: Mapping[str, Value] = {}
    sources: tuple[Source, ...] = ()
    """Models that found it, all that were fused; none: a person drew it."""
    verdict: Verdict = "new"
    human: bool = False
    """Whether a person drew, changed, noted, accepted or rejected it: no model changes it from then on."""

    @property
    def decided(self) -> bool:
        """Whether a person has said that it is right or wrong. Who touched a guess by a note or an attribute has not."""
        return self.human and self.verdict != "new"


class ImageRecord(NamedTuple):
    """What is known of an image. One without objects is a record, and so is one that can't be read."""

    name: str
    """Path below the folder of the images, with forward slashes."""
    sha256: str
    """Digest of the file, in hexadecimal; empty where it can't be read."""
    size: Size
    """Height and width of the upright image; (0, 0) where it can't be read."""
    objects: tuple[Annotation, ...] = ()
    """In order of their ids."""
    state: State = "new"
    failure: str | None = None
    """Why the image can't be read; None where it can."""
    version: int = 0
    """Number of changes so far: a change that was made of an older version is refused."""
    labelling: str = ""
    """Digest of the models and settings of the last run that labelled it; empty where none did."""


class Event(NamedTuple):
    """Change of a record: who did what, and when."""

    number: int
    """Counts the changes of the whole store."""
    name: str
    """Name of the image."""
    who: str
    """Name of the model, or `human:NAME`."""
    action: str
    """Such as label, accept, reject, rename, move, add, delete, attribute, undo, redo."""
    at: float
    """Seconds since 1970."""
    object: int | None = None
    """Id of the object; None for the whole image."""
    before: str = ""
    """What there was, as JSON."""
    after: str = ""
    """What there is, as JSON."""

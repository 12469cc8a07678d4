"""The declaration of settings, and the settings for reading a source.

A setting is declared once, as a field of a pydantic model: its type, default and range, and a
`Setting` with its help. Options of the command line, ``config.toml``, error messages and
``docs/reference/settings.md`` are made from it. The module imports little, so that ``--help`` is
quick.
"""

import types
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from pudistill.data.names import NO_CLASS_LABEL
from pudistill.exceptions import InputError

# Panels of `pudistill fit --help` and chapters of docs/reference/settings.md, in order.
DATA, TRUSTED, TESTING = "Data", "Trusted labels", "Testing"
LEARNING, FILTER, PAPER = "Learning", "The filter", "The paper's method"
NOISE, RUNNING = "Noise for experiments", "Running"
PANELS = (DATA, TRUSTED, TESTING, LEARNING, FILTER, PAPER, NOISE, RUNNING)


@dataclass(frozen=True)
class Setting:
    """The description of a setting for users.

    Attributes
    ----------
    panel : str
        Section of the help, one of `PANELS`.
    help : str
        Effect of the setting, in plain text.
    expected : str or None
        Allowed values, for an error message, where pydantic's own words would not be clear.
    metavar : str or None
        Placeholder of the value in the help.
    default_text : str or None
        Effect of the default, where the default is None.
    choices : tuple of str
        Values that the shell completes; by default the values of the `Literal`.
    only_for : str or None
        Data, learners or methods that the setting applies to, if not to all.
    option : str or None
        Option of the command line, if its name differs from the field's, or if it is a switch
        without ``--no-``.
    """

    panel: str
    help: str
    expected: str | None = None
    metavar: str | None = None
    default_text: str | None = None
    choices: tuple[str, ...] = ()
    only_for: str | None = None
    option: str | None = None


class SettingsModel(BaseModel):
    """Base of all models whose fields are settings."""

    model_config = ConfigDict(extra="forbid")

    @classmethod
    def read(cls, values: dict[str, Any]) -> Self:
        """Check settings and return them; an `InputError` names a wrong value and those allowed."""
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0])
            if name not in cls.model_fields:
                raise InputError(f"There is no setting {name!r}: correct or remove it.") from error
            declared = settings_of(cls).get(name)
            expected = cls.model_fields[name].description or (declared and declared.expected)
            problem = f"it should be {expected}" if expected else first["msg"]
            raise InputError(
                f"The setting {name} cannot be {first.get('input')!r}: "
                f"{problem[0].lower()}{problem[1:]}."
            ) from error


@cache
def settings_of(model: type[BaseModel]) -> dict[str, Setting]:
    """Return the `Setting` of each field by name, the model's own fields before inherited fields.

    Examples
    --------
    >>> from pudistill.data.options import ReadSettings, settings_of
    >>> settings_of(ReadSettings)["image_size"].panel
    'Data'
    """
    inherited = getattr(model.__base__, "model_fields", {})
    names = sorted(model.model_fields, key=lambda name: name in inherited)
    declared = {
        name: [entry for entry in model.model_fields[name].metadata if isinstance(entry, Setting)]
        for name in names
    }
    return {name: entries[0] for name, entries in declared.items() if entries}


def choices_of(model: type[BaseModel], name: str) -> tuple[str, ...]:
    """Return the values of a setting that a shell can complete.

    Examples
    --------
    >>> from pudistill.runs.settings import Settings
    >>> from pudistill.data.options import choices_of
    >>> choices_of(Settings, "recipe")
    ('fast', 'slim', 'paper', 'clothing1m')
    """
    choices = settings_of(model)[name].choices
    return choices or tuple(
        str(value)
        for kind in alternatives(model.model_fields[name].annotation)
        if get_origin(kind) is Literal
        for value in get_args(kind)
    )


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union; for any other type, a tuple of the type itself."""
    is_union = get_origin(annotation) in (Union, types.UnionType)
    return get_args(annotation) if is_union else (annotation,)


def _known_encoding(name: str | None) -> str | None:
    """Raise a ValueError unless a name is that of an encoding of texts."""
    if name is not None:
        try:
            "".encode(name)
        except LookupError as error:
            raise ValueError(str(error)) from error
    return name


class ReadSettings(SettingsModel):
    """The user's settings for reading a source; see `load_dataset`."""

    image_column: Annotated[
        str | None,
        Setting(
            DATA, "Column of pictures.", default_text="image, img, picture, ...", only_for="tables"
        ),
    ] = None
    text_column: Annotated[
        str | None,
        Setting(
            DATA, "Column of texts.", default_text="text, sentence, review, ...", only_for="tables"
        ),
    ] = None
    label_column: Annotated[
        str | None,
        Setting(
            DATA,
            "Column of given labels; or a pattern, such as 'worker_*', of the columns of several "
            "people, rules or models, blank where one says nothing.",
            default_text="label, y, target, ...",
            only_for="tables",
        ),
    ] = None
    id_column: Annotated[
        str | None,
        Setting(
            DATA, "Column of unique names.", default_text="id, else row numbers", only_for="tables"
        ),
    ] = None
    trusted_column: Annotated[
        str | None,
        Setting(
            TRUSTED,
            "Column that marks verified samples: true, yes, 1 or x; false, no, 0 or a blank.",
            default_text="trusted",
            only_for="tables",
        ),
    ] = None
    no_class_label: Annotated[
        str | None,
        Setting(
            TRUSTED,
            "Verified label of samples that are of no class. They teach which other samples are "
            "unlike all classes.",
        ),
    ] = NO_CLASS_LABEL
    group_column: Annotated[
        str | None,
        Setting(
            DATA,
            "Column of groups, such as patients, whose samples are alike: no held-out part splits "
            "a group.",
            default_text="none",
            only_for="tables",
        ),
    ] = None
    noise_group_column: Annotated[
        str | None,
        Setting(
            DATA,
            "Column of groups whose given labels can have noise of their own, such as annotators, "
            "months or sources.",
            default_text="none",
            only_for="tables",
        ),
    ] = None
    encoding: Annotated[
        str | None,
        AfterValidator(_known_encoding),
        Setting(
            DATA,
            "Encoding of texts that are not UTF-8, such as latin-1 or cp1252.",
            expected="the name of an encoding, such as latin-1",
            only_for=".csv, .tsv and JSON",
        ),
    ] = None
    image_size: Annotated[
        int | None,
        Field(ge=1),
        Setting(
            DATA,
            "Resize and crop pictures to a square of this many pixels.",
            expected="at least 1 pixel",
            only_for="pictures",
        ),
    ] = None
    skip_bad: Annotated[
        bool,
        Setting(
            DATA, "Leave out pictures that cannot be read, and list them.", only_for="pictures"
        ),
    ] = False
    lazy: Annotated[
        bool,
        Setting(
            DATA,
            "Leave pictures on disk even if they fit into memory. Those that do not fit stay "
            "there anyway.",
            option="--lazy",
            only_for="pictures",
        ),
    ] = False
    picture_cache: Annotated[
        float | None,
        Field(ge=0),
        Setting(
            DATA,
            "GiB of disk, in the folder for temporary files (TMPDIR), for decoded pictures that "
            "are not in memory.",
            default_text="half of the free space",
            only_for="pictures",
        ),
    ] = None

    def read_options(self) -> dict[str, Any]:
        """Return the arguments of `load_dataset` that say how a source is read."""
        return self.model_dump(include=set(ReadSettings.model_fields))


COLUMN_OPTIONS = tuple(name for name in ReadSettings.model_fields if name.endswith("_column"))


class ReadOptions(ReadSettings):
    """The options of a reader: the user's settings, and the requirements of the caller.

    Attributes
    ----------
    labels_required : bool
        Whether there must be labels of at least two classes.
    columns_required : bool
        Whether the named columns must exist.
    samples_required : bool
        Whether a table must hold samples, not only labels.
    """

    model_config = ConfigDict(frozen=True)

    labels_required: bool = True
    columns_required: bool = True
    samples_required: bool = True

    def picture_options(self) -> dict[str, Any]:
        """Return the options of `decode_pictures`."""
        gib = self.picture_cache
        return {
            "image_size": self.image_size,
            "skip_bad": self.skip_bad,
            "lazy": self.lazy,
            "cache": None if gib is None else int(gib * 2**30),
        }

    def without_columns(self, present: set[str]) -> "ReadOptions":
        """Return the options without the names of columns that are not `present`."""
        absent = [name for name in COLUMN_OPTIONS if getattr(self, name) not in present]
        return self.model_copy(update=dict.fromkeys(absent))

"""The settings of a run: everything that decides what it computes."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field

from pudistill.data.options import (
    DATA,
    FILTER,
    LEARNING,
    NOISE,
    PAPER,
    RUNNING,
    TESTING,
    TRUSTED,
    ReadSettings,
    Setting,
)
from pudistill.data.readers import FORMATS_HELP
from pudistill.exceptions import InputError
from pudistill.learners.networks.names import PRETRAINED
from pudistill.methods.registry import METHODS, load_class
from pudistill.utils.time_limit import LIMIT_EXPECTED, checked_limit

NETWORKS = ("mlp", "small_cnn", "slim_airbench", "airbench", "preact_resnet18")
OWN_METHODS = ("default", "paper")
DEMO: dict[str, Any] = {"data": "digits", "test_fraction": 0.25}


def imports_module(learner: Any) -> bool:
    """Return whether a learner's name is that of a class, and not of one of scikit-learn."""
    name = str(learner)
    return ":" in name and not name.startswith((PRETRAINED, "sklearn."))


class Settings(ReadSettings):
    """Everything that decides what a run computes; ``config.toml`` holds exactly these settings.

    Settings that are parameters of `load_dataset` or `PUDistillClassifier` have the same names and
    defaults there. The classifier checks the ranges of its own parameters.
    """

    data: Annotated[
        str,
        Setting(DATA, f"{FORMATS_HELP[0].upper()}{FORMATS_HELP[1:]}.", metavar="DATA"),
    ]
    trusted: Annotated[
        str | None,
        Setting(
            TRUSTED,
            "Table with the ids of verified samples and, optionally, their verified labels, in "
            "columns named as in the data, or id and label.",
        ),
    ] = None
    more_trusted: Annotated[
        list[str],
        Setting(
            TRUSTED,
            "Further tables of verified samples, in the order in which they were drawn; repeat the "
            "option for each.",
            metavar="FILE",
        ),
    ] = []
    merge: Annotated[
        list[str],
        Setting(
            TRUSTED,
            "Classes that are one: OLD=NEW counts all labels OLD as NEW; repeat the option for "
            "each.",
            metavar="OLD=NEW",
        ),
    ] = []
    unverified_classes: Annotated[
        Literal["refuse", "leave out"],
        Setting(
            TRUSTED,
            "What to do with given labels of a class of which no sample is verified: refuse the "
            "data, or leave out these labels.",
        ),
    ] = "refuse"
    added: Annotated[
        list[str],
        Setting(
            DATA,
            "Further data of the same kind, each a batch whose labels have noise of their own; "
            "repeat the option for each.",
            metavar="DATA",
        ),
    ] = []
    start_from: Annotated[
        str | None,
        Setting(
            RUNNING,
            "Finished run of the same data, perhaps with fewer verified or fewer samples, from "
            "which the fit starts; see `pudistill update`.",
            metavar="RUN",
            only_for="method default",
        ),
    ] = None
    annotations: Annotated[
        str | None,
        Setting(
            DATA,
            "Table of labels by several people, rules or models, one row for each: columns id, "
            "source and label.",
            metavar="FILE",
        ),
    ] = None
    test_data: Annotated[
        str | None, Setting(TESTING, "Samples with right labels to measure the accuracy on.")
    ] = None
    test_fraction: Annotated[
        float | None,
        Field(gt=0, lt=1),
        Setting(
            TESTING,
            "Share of the trusted samples to hold out for testing (sweep: share of all samples).",
        ),
    ] = None
    features: Annotated[
        str | None,
        Setting(
            DATA,
            "Learn from features of pictures or texts. Name a model that computes them, on the "
            "Hugging Face hub (such as facebook/dinov2-small) or in a folder; hog (for pictures: "
            "histograms of oriented gradients, in seconds and without a network); or a .npy file "
            "of your own features, one row for each sample.",
            metavar="SOURCE",
            only_for="pictures and texts",
        ),
    ] = None
    predictions: Annotated[
        str | None,
        Setting(
            DATA,
            "Predictions of your own model for the samples, which join the first guess: a table "
            "with a column for each class and perhaps one of ids, or a .npy file, one row for each "
            "sample.",
            metavar="FILE",
            only_for="method default",
        ),
    ] = None
    test_features: Annotated[
        str | None,
        Setting(
            TESTING,
            "Your own features of the test data.",
            metavar="FILE.npy",
            only_for="your own features",
        ),
    ] = None
    features_cache: Annotated[
        str | None,
        Setting(
            DATA,
            "Folder in which runs share features that a model has computed.",
            default_text="the run's own",
            only_for="features of a model",
        ),
    ] = None

    noise: Annotated[
        Literal["symmetric", "asymmetric", "pair", "instance"] | None,
        Setting(NOISE, "Kind of noise: symmetric, asymmetric (cyclic), pair or instance."),
    ] = None
    level: Annotated[
        float, Field(ge=0, le=1), Setting(NOISE, "Noise level of the whole data set.")
    ] = 0.5
    trusted_fraction: Annotated[
        float,
        Field(gt=0, lt=1),
        Setting(NOISE, "Share of each class that is trusted.", option="--trusted"),
    ] = 0.05

    learner: Annotated[
        str,
        Setting(
            LEARNING,
            f"auto, logistic_regression, svm, {', '.join(NETWORKS)}, transformers:NAME (such as "
            "transformers:microsoft/resnet-50, or a folder), or module:NAME: a class (such as "
            "sklearn.ensemble:RandomForestClassifier), or a PyTorch network of your own.",
            choices=("auto", "logistic_regression", "svm", *NETWORKS),
        ),
    ] = "auto"
    recipe: Annotated[
        Literal["fast", "slim", "paper", "clothing1m"],
        Setting(
            LEARNING,
            "Training of networks: fast, slim (for slim_airbench), paper or clothing1m.",
            only_for="networks",
        ),
    ] = "fast"
    epochs: Annotated[
        int | None,
        Field(ge=1),
        Setting(
            LEARNING,
            "Passes over the training data.",
            default_text="the recipe's",
            only_for="networks",
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        Field(ge=1),
        Setting(
            LEARNING,
            "Largest number of samples in a training step.",
            default_text="the recipe's",
            only_for="networks",
        ),
    ] = None
    method: Annotated[
        str,
        Setting(
            LEARNING,
            "default: one configuration for every noise level; paper: the paper's Algorithm 1, "
            f"unchanged; or another method: {', '.join(METHODS)}.",
            choices=(*OWN_METHODS, *METHODS),
        ),
    ] = "default"

    n_members: Annotated[
        int,
        Setting(
            FILTER,
            "Number of members of the filter for each class, N.",
            only_for="methods default and paper",
        ),
    ] = 20
    max_iter: Annotated[
        int,
        Setting(
            FILTER,
            "Maximum number of iterations of the filter, K.",
            only_for="methods default and paper",
        ),
    ] = 10
    threshold: Annotated[
        float | Literal["auto"],
        Setting(
            FILTER,
            "A member votes for a sample if its probability is at least this, α. auto: chosen for "
            "each class.",
            expected="a number, or auto",
            only_for="methods default and paper",
        ),
    ] = "auto"
    min_votes: Annotated[
        int | float | Literal["auto"],
        Setting(
            FILTER,
            "Votes that a sample needs, θ: a count (19), a fraction (0.95), or auto.",
            expected="a whole number, a fraction up to 1.0, or auto",
            only_for="methods default and paper",
        ),
    ] = "auto"
    target_precision: Annotated[
        float,
        Setting(
            FILTER,
            "Precision of each class's clean set that auto aims at.",
            only_for="methods default and paper, with auto",
        ),
    ] = 0.95

    min_confidence: Annotated[
        float,
        Setting(
            PAPER,
            "A pseudo-label uses the teachers if their probability is at least this, η.",
            only_for="method paper",
        ),
    ] = 0.7
    blend: Annotated[
        float,
        Setting(PAPER, "Weight of the teachers in a pseudo-label, λ.", only_for="method paper"),
    ] = 0.5
    label_type: Annotated[
        Literal["soft_bootstrap", "hard_bootstrap", "hard_label"],
        Setting(
            PAPER,
            "Kind of pseudo-label: soft_bootstrap, hard_bootstrap or hard_label.",
            only_for="method paper",
        ),
    ] = "soft_bootstrap"

    n_teachers: Annotated[
        int | Literal["auto"],
        Setting(
            LEARNING,
            "Number of teachers, or auto.",
            expected="a whole number, or auto",
            only_for="methods default and paper",
        ),
    ] = "auto"
    tol: Annotated[
        float,
        Setting(
            FILTER,
            "Stop the filter for a class when its clean set changes by at most this fraction.",
            only_for="methods default and paper",
        ),
    ] = 0.01
    all_iterations: Annotated[
        bool,
        Setting(
            PAPER,
            "Run all iterations of the filter, also with the default method.",
            only_for="methods default and paper",
        ),
    ] = False
    share_trunk: Annotated[
        bool | Literal["auto"],
        Setting(
            FILTER,
            "Whether the filter's networks share layers: yes, no, or auto (yes with the default "
            "method).",
            expected="yes, no, or auto",
            choices=("auto", "yes", "no"),
            only_for="networks",
        ),
    ] = "auto"

    semi_supervised: Annotated[
        bool,
        Setting(
            LEARNING,
            "First train networks on the trusted pictures and all others without their labels. No "
            "noise can mislead them, and networks that read given labels start from them.",
            only_for="method default, networks on pictures",
        ),
    ] = False

    n_jobs: Annotated[
        int | None,
        Setting(
            RUNNING,
            "Number of learners trained at the same time; -1: one per core.",
            default_text="-1, and 1 for networks on a GPU",
            expected="a whole number other than 0",
        ),
    ] = None
    lora_rank: Annotated[
        int | None,
        Field(ge=1),
        Setting(
            LEARNING,
            "Train matrices of this rank beside the weights of a text model, which stay as they "
            "are (LoRA).",
            default_text="all weights",
            only_for="transformers:NAME on texts",
        ),
    ] = None
    device: Annotated[
        str,
        Setting(
            RUNNING,
            "Where networks compute: cpu, cuda, cuda:1, mps or another device of PyTorch; auto: "
            "the best one.",
            choices=("auto", "cpu", "cuda", "mps"),
            only_for="networks",
        ),
    ] = "auto"
    compare: Annotated[
        bool,
        Setting(
            TESTING,
            "Compare the candidate models on held-out trusted samples. With test data, also test "
            "models trained on the given labels and on the trusted labels only.",
        ),
    ] = True
    metric: Annotated[
        Literal["accuracy", "balanced_accuracy", "f1_macro", "neg_log_loss"],
        Setting(
            TESTING,
            "What decides which candidate is kept, and what is promised on new samples: accuracy, "
            "balanced_accuracy, f1_macro or neg_log_loss.",
            only_for="method default, with compare",
        ),
    ] = "accuracy"
    single_model: Annotated[
        bool,
        Setting(
            LEARNING,
            "Distil the shipped mixture of models into one, which `pudistill export` can write as "
            "a file.",
            only_for="method default",
        ),
    ] = False
    tracker: Annotated[
        Literal["tensorboard", "mlflow", "wandb"] | None,
        Setting(
            RUNNING,
            "Log the loss of each epoch of each network and the results: tensorboard (in the run's "
            "folder tracking/), mlflow or wandb.",
            only_for="networks",
        ),
    ] = None
    time_limit: Annotated[
        float | str | None,
        BeforeValidator(checked_limit),  # afterwards, true is 1.0
        Setting(
            RUNNING,
            "Time for the training, such as 90s, 10m or 1h30m: the best result of that time. It "
            "depends on the speed of the machine.",
            expected=LIMIT_EXPECTED,
            metavar="TIME",
            only_for="methods default and paper",
        ),
    ] = None
    seed: Annotated[int, Field(ge=0, lt=2**32), Setting(RUNNING, "Seed of all random numbers.")] = 0

    @classmethod
    def read(cls, values: dict[str, Any]) -> Self:
        """Check settings; an `InputError` names the first wrong setting and what is allowed."""
        settings = super().read(values)
        known = [*OWN_METHODS, *METHODS]
        if settings.method not in known:
            raise InputError(
                f"There is no method {settings.method!r}: choose one of {', '.join(known)}."
            )
        if settings.time_limit is not None and settings.method not in OWN_METHODS:
            raise InputError(
                f"The method {settings.method} has no time limit: leave time_limit out, or choose "
                "the method default or paper."
            )
        if settings.predictions is not None and settings.method != "default":
            raise InputError("predictions is for the method default: leave it out.")
        if settings.test_data is not None and settings.test_fraction is not None:
            raise InputError("test_data and test_fraction were both given: leave one of them out.")
        if settings.test_data is not None and settings.test_data == settings.data:
            raise InputError("The test data are the training data: name other samples.")
        settings._check_features()
        return settings

    @staticmethod
    def check_trust(values: dict[str, Any], repeated: Mapping[str, Any], command: str) -> None:
        """Check that settings from a file run no code, and write nowhere, unless the user says so.

        Parameters
        ----------
        values : dict
            Settings from a file, which may be somebody else's.
        repeated : mapping
            The settings that the user gave beside the file.
        command : str
            The command that reads the file, for the message.

        Raises
        ------
        InputError
            If the user did not repeat such a setting.

        Examples
        --------
        >>> from pudistill.runs.settings import Settings
        >>> run = {"learner": "mine:Learner"}
        >>> Settings.check_trust(run, {"learner": "mine:Learner"}, "pudistill resume run")
        >>> Settings.check_trust(run, {}, "pudistill resume run")
        Traceback (most recent call last):
            ...
        pudistill.exceptions.InputError: The settings name the learner 'mine:Learner', ...
        """
        learner, cache = values.get("learner"), values.get("features_cache")
        if imports_module(learner) and repeated.get("learner") != learner:
            raise InputError(
                f"The settings name the learner {learner!r}, whose module would be imported and "
                f"run: if you trust it, repeat it: {command} --learner {shlex.quote(str(learner))}"
            )
        if cache is not None and repeated.get("features_cache") != cache:
            raise InputError(
                f"The settings name the folder {str(cache)!r} for features, which would be written "
                f"to: if you agree, repeat it: {command} --features-cache "
                f"{shlex.quote(str(cache))}"
            )
        tracker = values.get("tracker")
        if tracker in ("mlflow", "wandb") and repeated.get("tracker") != tracker:
            raise InputError(
                f"The settings name the tracker {tracker!r}, which would get settings and results: "
                f"if you agree, repeat it: {command} --tracker {tracker}"
            )

    def trusted_options(self) -> str:
        """Return the options that `check_trust` asks for, as part of a command."""
        config = self.to_config()
        options = ""
        if imports_module(self.learner):
            options += f" --learner {shlex.quote(self.learner)}"
        if self.features_cache is not None:
            options += f" --features-cache {shlex.quote(config['features_cache'])}"
        return options

    def _check_features(self) -> None:
        needs_test_features = self.own_features is not None and self.test_data is not None
        if needs_test_features and self.test_features is None:
            raise InputError(
                f"The features of {self.test_data} are missing, because {self.features} holds only "
                f"those of {self.data}: name them with test_features."
            )
        if self.test_features is not None and not needs_test_features:
            raise InputError(
                "test_features needs test_data and your own features, a .npy file: leave it out. A "
                "model computes the features of the test data itself."
            )

    @property
    def needs_trusted(self) -> bool:
        """Whether the method cannot be fitted without trusted samples."""
        return self.method == "paper" or (
            self.method in METHODS and METHODS[self.method].needs_trusted
        )

    @property
    def needs_every_class(self) -> bool:
        """Whether the method needs trusted samples of every class, if it has any."""
        return self.method not in METHODS or load_class(self.method).needs_every_class

    @property
    def own_features(self) -> Path | None:
        """The file of the user's own features; None if `features` names a model or is not set."""
        path = None if self.features is None else Path(self.features)
        return path if path is not None and (path.suffix == ".npy" or path.is_file()) else None

    def to_config(self) -> dict[str, Any]:
        """Return the settings for ``config.toml``, with absolute paths."""
        unused = set() if self.noise else {"level", "trusted_fraction"}
        unused |= {name for name in ("more_trusted", "added", "merge") if not getattr(self, name)}
        config = self.model_dump(exclude_none=True, exclude=unused)
        for name in (
            "data",
            "trusted",
            "annotations",
            "test_data",
            "features",
            "test_features",
            "predictions",
            "start_from",
        ):
            if name in config and Path(config[name]).exists():
                config[name] = str(Path(config[name]).resolve())
        for name in {"more_trusted", "added"} - unused:
            config[name] = [str(Path(path).resolve()) for path in config[name]]
        if self.features_cache is not None:
            config["features_cache"] = str(Path(self.features_cache).resolve())
        folder = Path(self.learner.removeprefix(PRETRAINED))
        if self.learner.startswith(PRETRAINED) and folder.is_dir():
            config["learner"] = f"{PRETRAINED}{folder.resolve()}"
        first = [name for name in ("data", "trusted") if name in config]
        return {name: config[name] for name in (*first, *config)}  # for the reader of the file

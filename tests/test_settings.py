"""Settings are declared once; signatures that must repeat their defaults agree with them."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pudistill
from pudistill import PUDistillClassifier, TieredPUFilter, TrustedDataset, load_dataset
from pudistill.data.options import PANELS, ReadOptions, choices_of, settings_of
from pudistill.exceptions import InputError
from pudistill.labels.pseudo_labels import LABEL_TYPES
from pudistill.runs.settings import NETWORKS, Settings
from pudistill.runs.settings_table import settings_table

ROOT = Path(__file__).parents[1]


def test_the_classifiers_parameters_have_the_same_defaults():
    parameters = inspect.signature(PUDistillClassifier).parameters
    shared = parameters.keys() & Settings.model_fields.keys()
    assert len(shared) >= 13
    for name in shared:
        assert parameters[name].default == Settings.model_fields[name].default, name


def test_the_filters_parameters_have_the_same_defaults():
    filters = inspect.signature(TieredPUFilter).parameters
    classifiers = inspect.signature(PUDistillClassifier).parameters
    # The rule of the filter alone is the paper's; it never shares layers, as the paper's method.
    differing = {"threshold", "min_votes", "share_trunk"}
    assert filters.keys() < classifiers.keys()
    for name in filters.keys() - differing:
        assert filters[name].default == classifiers[name].default, name


def test_docstrings_name_the_defaults_of_the_signatures():
    for documented in (PUDistillClassifier, TieredPUFilter):
        for name, parameter in inspect.signature(documented).parameters.items():
            default = str(parameter.default)
            line = re.search(rf"^ +(?:\w+, )*{name}(?:, \w+)* : .*$", documented.__doc__, re.M)
            assert f"default={default}" in line[0].replace('"', ""), name


def test_load_dataset_takes_the_options_of_readers():
    parameters = inspect.signature(load_dataset).parameters
    files = {"source", "trusted", "annotations"}
    assert parameters.keys() - files == ReadOptions.model_fields.keys()
    for name, field in ReadOptions.model_fields.items():
        assert parameters[name].default == field.default, name


def test_choices_are_those_of_the_code():
    assert set(choices_of(Settings, "label_type")) == set(LABEL_TYPES)
    recipes = pytest.importorskip("pudistill.learners.networks.recipes").RECIPES
    assert set(choices_of(Settings, "recipe")) == set(recipes) - {"fast_table", "fast_text"}
    assert set(NETWORKS) < set(choices_of(Settings, "learner"))


def test_every_setting_has_a_panel_and_a_help_text():
    declared = settings_of(Settings)
    assert declared.keys() == Settings.model_fields.keys()
    assert {setting.panel for setting in declared.values()} == set(PANELS)
    for setting in declared.values():
        assert setting.help[-1] == "."


def test_the_documented_table_is_up_to_date():
    assert (ROOT / "docs" / "reference" / "settings.md").read_text() == settings_table()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"image_size": 0}, "image_size cannot be 0: it should be at least 1 pixel"),
        ({"recipe": "slow"}, "'fast', 'slim', 'paper' or 'clothing1m'"),
        ({"n_teachers": "few"}, "n_teachers cannot be 'few': it should be a whole number, or auto"),
        ({"colour": "red"}, "There is no setting 'colour'"),
        ({"method": "magic"}, "There is no method 'magic': choose one of default, paper, cross"),
        ({"time_limit": True}, "time_limit cannot be True: it should be seconds, a text"),
        ({"time_limit": 60, "method": "mixup"}, "The method mixup has no time limit"),
    ],
)
def test_a_wrong_setting_is_named(values, says):
    with pytest.raises(InputError, match=says):
        Settings.read({"data": "iris", **values})


# The command line ---------------------------------------------------------------------------


def run(*args, **variables):
    return subprocess.run(
        [sys.executable, "-m", "pudistill", *args],
        env=os.environ | {"COLUMNS": "80", **variables},
        capture_output=True,
        encoding="utf-8",
    ).stdout


def test_the_help_groups_all_settings_in_panels():
    text = run("fit", "--help")
    titles = [panel for panel in PANELS if f"─ {panel} ─" in text]
    assert titles == [panel for panel in PANELS if panel != "Noise for experiments"]
    for name, setting in settings_of(Settings).items():
        if setting.panel in titles and name != "data":
            assert f"--{name.replace('_', '-')} " in text, name
    assert max(map(len, text.splitlines())) <= 80


def test_help_needs_no_heavy_package():
    code = """
import sys
from pudistill.cli import main
sys.argv = ["pudistill", *{arguments}]
try:
    main()
except SystemExit:
    print("loaded:", *sorted({packages} & set(sys.modules)))
"""
    for arguments, packages in (
        (["--help"], {"numpy", "pandas", "pydantic", "sklearn", "torch"}),
        (["fit", "--help"], {"numpy", "pandas", "sklearn", "torch"}),
    ):
        program = code.format(arguments=arguments, packages=packages)
        out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout
        assert out.splitlines()[-1] == "loaded:", out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("pudistill fit --recipe ", {"fast", "slim", "paper", "clothing1m"}),
        ("pudistill fit --method co_t", {"co_teaching"}),
        ("pudistill sweep --learner s", {"slim_airbench", "small_cnn", "svm"}),
        ("pudistill fit --label-type hard", {"hard_bootstrap", "hard_label"}),
        ("pudistill fit --share-trunk ", {"auto", "yes", "no"}),
        ("pudistill fit --min-", {"--min-confidence", "--min-votes"}),
    ],
)
def test_the_shell_completes_options_and_choices(words, expected):
    code = "import sys; sys.argv = ['pudistill']; from pudistill.cli import main; main()"
    variables = {
        "_PUDISTILL_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    found = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | variables, capture_output=True, text=True
    )
    assert set(found.stdout.split()) == expected


# Types --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_public_names_have_their_types(tmp_path, monkeypatch):
    api = pytest.importorskip("mypy.api")
    assert sorted([*pudistill._MODULES, "__version__", "plots"]) == sorted(pudistill.__all__)
    (tmp_path / "snippet.py").write_text(
        "import pudistill\n"
        "from pudistill import PUDistillClassifier, corrupt_labels, load_dataset\n"
        "reveal_type(PUDistillClassifier())\n"
        "reveal_type(load_dataset('iris'))\n"
        "reveal_type(pudistill.TrustedKFold())\n"
        "reveal_type(corrupt_labels)\n"
        "reveal_type(pudistill.load('run'))\n"
        "reveal_type(pudistill.load('run').label_table_.shape)\n"
        "reveal_type(PUDistillClassifier().noise_)\n"
        "reveal_type(PUDistillClassifier().comparison_)\n"
        "reveal_type(PUDistillClassifier().expected_accuracy_)\n"
        "pudistill."
        "misspelt\n"
    )
    # Other modules and packages would take most of the time.
    used = {PUDistillClassifier, *PUDistillClassifier.__mro__, load_dataset, TrustedDataset}
    used |= {pudistill.TrustedKFold, pudistill.corrupt_labels, pudistill.load}
    modules = {"pudistill", *(name.__module__ for name in used)}
    modules |= {f"pudistill.distillation.{name}" for name in ("comparison", "noise_estimate")}
    sections = [
        f"[mypy-{module}]\nfollow_imports = silent"
        for module in modules
        if module.startswith("pudistill")
    ]
    general = "[mypy]\nfollow_imports = skip\nignore_missing_imports = True"
    (tmp_path / "mypy.ini").write_text("\n".join([general, *sections]))
    monkeypatch.setenv("MYPYPATH", str(ROOT / "src"))
    monkeypatch.chdir(tmp_path)
    out, errors, _ = api.run(["--config-file", "mypy.ini", "snippet.py"])
    lines = [line for line in out.splitlines() if "Revealed type is" in line]
    types = [line.split("Revealed type is ")[1].strip('"') for line in lines]
    assert len(types) == 9, out + errors
    assert types[0] == "pudistill.classifier.PUDistillClassifier"
    assert types[1] == "pudistill.data.dataset.TrustedDataset"
    assert types[2] == "pudistill.labels.model_selection.TrustedKFold"
    assert types[3].startswith("def (y: ")
    assert types[4].endswith(".NoisyLabelClassifier")
    for shown, name in zip(
        types[6:], ("NoiseEstimate", "Comparison", "ExpectedAccuracy"), strict=True
    ):
        assert shown.endswith(f".{name} | None"), shown
    assert 'Module has no attribute "misspelt"' in out

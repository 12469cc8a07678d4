"""The recipes, epoch by epoch, against the paper's section IV-C."""

import subprocess
import sys
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pudistill.exceptions import InputError
from pudistill.learners.networks.recipes import RECIPES, Recipe, Role, find_recipe


def rates(recipe):
    return [recipe.rate(epoch) for epoch in range(recipe.epochs)]


def test_paper_member_schedule():
    expected = [0.01] * 20 + [0.001] * 10
    assert rates(RECIPES["paper"]["member"]) == pytest.approx(expected)


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_paper_distillation_schedule(role):
    expected = [0.05] * 30 + [0.005] * 20 + [0.0005] * 30 + [0.00005] * 20
    assert rates(RECIPES["paper"][role]) == pytest.approx(expected)


def test_clothing1m_schedules():
    recipes = RECIPES["clothing1m"]
    assert rates(recipes["member"]) == pytest.approx([0.03] * 10 + [0.003] * 5 + [0.0003] * 5)
    assert rates(recipes["student"]) == pytest.approx([0.001] * 3 + [0.0001] * 2)
    assert {recipe.batch_size for recipe in recipes.values()} == {32}


def test_paper_regularises_distillation_only():
    member, student = RECIPES["paper"]["member"], RECIPES["paper"]["student"]
    assert (member.mixup, member.entropy_weight) == (0, 0)
    assert (student.mixup, student.entropy_weight) == (2, 0.8)
    assert (student.momentum, student.weight_decay, student.batch_size) == (0.9, 1e-4, 128)


def test_one_cycle_rises_and_falls_to_zero():
    recipe = Recipe(epochs=8, learning_rate=0.4, schedule="one_cycle", warm_up=0.25)
    assert [recipe.rate(epoch) for epoch in (0, 1, 2, 5, 8)] == pytest.approx([0, 0.2, 0.4, 0.2, 0])


def test_milestones_move_with_the_epochs():
    short = RECIPES["paper"]["student"].changed(epochs=10)
    assert rates(short) == pytest.approx([0.05] * 3 + [0.005] * 2 + [0.0005] * 3 + [0.00005] * 2)


def test_small_data_get_the_smallest_number_of_steps():
    recipe = Recipe(epochs=10, learning_rate=0.1, batch_size=64, min_steps=100)
    assert recipe.for_n_samples(65).epochs == 50
    assert recipe.for_n_samples(64_000).epochs == 10
    assert recipe.changed(epochs=3).for_n_samples(65).epochs == 3, "asked for explicitly"


def test_models_beside_the_student_make_fewer_steps_on_few_samples_only():
    teacher, reference = (RECIPES["fast"][role] for role in ("teacher", "reference"))
    assert teacher.for_n_samples(120).epochs > 2 * reference.for_n_samples(120).epochs
    assert teacher.for_n_samples(6000) == reference.for_n_samples(6000)
    assert RECIPES["paper"]["reference"] == RECIPES["paper"]["teacher"]


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_noise_aware_students_use_no_mixup_and_no_entropy_term(name):
    recipe = RECIPES[name]["noise_aware"]
    assert (recipe.mixup, recipe.entropy_weight) == (0, 0)


def test_tables_have_no_consistency_term():
    consistent = replace(RECIPES["fast"]["noise_aware"], consistency_weight=1.0)
    assert find_recipe(consistent, "noise_aware", pictures=True).consistency_weight == 1
    for recipe in ("fast", "paper", consistent):
        assert find_recipe(recipe, "noise_aware", pictures=False).consistency_weight == 0


@given(st.sampled_from(sorted(RECIPES)), st.sampled_from(get_args(Role)))
def test_rates_stay_within_the_largest(name, role):
    recipe = RECIPES[name][role]
    assert all(
        0 <= recipe.rate(step / 7) <= recipe.learning_rate for step in range(recipe.epochs * 7)
    )


def test_find_recipe():
    assert find_recipe("fast", None, pictures=True) is RECIPES["fast"]["student"]
    assert find_recipe("fast", "member", pictures=False) == RECIPES["fast_table"]["member"]
    assert find_recipe("paper", "member", pictures=False).augment == ()


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"epochs": 2.5},
        {"learning_rate": "0.1"},
        {"factor": np.nan},
        {"momentum": 2},
        {"nesterov": True, "momentum": 0},
        {"milestones": 3},
        {"centre_crop": 0},
        {"min_steps": -5},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"mixup": -1.0},
        {"schedule": "cosine"},
        {"augment": ("rotate",)},
        {"consistency_weight": -1.0},
        {"consistency_threshold": 0.0},
        {"consistency_threshold": 1.5},
        {"trusted_share": 1.0},
        {"warm_up": 0.0},
        {"warm_up": 1.0},
    ],
)
def test_senseless_values_are_named(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        Recipe(**{"epochs": 1, "learning_rate": 0.1} | wrong)


@pytest.mark.parametrize(("recipe", "role"), [("slow", None), ("fast", "pupil")])
def test_unknown_recipe_or_role(recipe, role):
    with pytest.raises(InputError, match=r"slow|pupil"):
        find_recipe(recipe, role, pictures=True)


def test_recipes_need_no_torch():
    code = "import sys, pudistill.learners.networks.recipes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

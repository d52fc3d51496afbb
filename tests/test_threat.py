"""The threat model decides which attacks a claim has to stand up to."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advjax import attacks, balls, evaluation, models, zoo
from advjax.attacks import Capability, ThreatModel

BALL = Capability('linf', 0.1)


def names(*threat):
    return set(ThreatModel(*threat).attacks())


def test_what_each_knowledge_can_run():
    by_gradient = {'fgsm', 'pgd', 'apgd', 'autoattack', 'mi_fgsm', 'universal'}
    stopping = {'deepfool', 'fmn', 'fab'}
    by_score = {'square', 'spsa', 'nes', 'random_search'}
    white, gray, transfer, score, decision = (
        names('untargeted', knowledge, BALL)
        for knowledge in ('white', 'gray', 'transfer', 'score', 'decision')
    )
    assert by_gradient | stopping | by_score | {'hop_skip_jump'} < white
    assert by_gradient | {'carlini_wagner'} < gray == transfer
    assert not (stopping | by_score) & gray
    assert score == by_score | {'hop_skip_jump'}
    assert decision == {'hop_skip_jump'}


def test_a_white_box_may_do_what_anyone_may():
    for goal in ('untargeted', 'targeted', 'confidence'):
        every = names(goal, 'white', BALL)
        for knowledge in ('gray', 'transfer', 'score', 'decision'):
            assert names(goal, knowledge, BALL) <= every


def test_the_norm_and_the_radius_are_the_capability():
    for norm in ('linf', 'l2', 'l1', 'l0'):
        threat = ThreatModel(capability=Capability(norm, 0.5, (0.0, 2.0)))
        for name, attack in threat.attacks().items():
            found = balls.of(attack)
            assert found, name
            assert {ball.norm_name for ball in found} == {norm}
            for ball in found:
                assert float(ball.eps) == 0.5
                # A universal perturbation itself lies around 0, not around an image.
                allowed = {(0.0, 2.0), None if name == 'universal' else (0.0, 2.0)}
                assert ball.bounds in allowed
    assert 'jsma' in names('untargeted', 'white', Capability('l0', 20))
    assert 'jsma' not in names('untargeted', 'white', BALL)
    assert names('untargeted', 'score', Capability('spatial')) == {'spatial'}


def test_without_a_radius_only_the_smallest_perturbation_makes_sense():
    goals = {e.name: e.looks_for for e in attacks.catalogue()}
    found = names('untargeted', 'white', Capability('l2'))
    assert {'carlini_wagner', 'deepfool', 'boundary'} < found
    assert {goals[name] for name in found} == {'minimum norm'}


def test_confidence_needs_a_loss_to_maximise():
    found = names('confidence', 'white', BALL)
    assert {'fgsm', 'pgd', 'square'} < found
    assert not found & {'deepfool', 'carlini_wagner', 'hop_skip_jump', 'random_search'}
    assert names('confidence', 'decision', BALL) == set()


def test_questions_are_limited_where_the_model_is_asked():
    few = Capability('linf', 0.1, queries=200)
    asked = ThreatModel('untargeted', 'score', few).attacks()
    assert {attack.calls for attack in asked.values()} <= set(range(150, 201))
    tight = ThreatModel('untargeted', 'score', Capability('linf', 0.1, queries=60))
    assert 'square' in tight.attacks()
    assert tight.refusals()['spsa'].startswith('queries must be an integer >= ')
    # One's own copy may be asked at will, but not for nothing.
    assert names('untargeted', 'gray', few) == names('untargeted', 'gray', BALL)
    cheap = Capability('linf', 0.1, budget=50)
    afford = ThreatModel('untargeted', 'gray', cheap)
    assert {'fgsm', 'pgd'} < set(afford.attacks())
    assert all(attack.calls <= 50 for attack in afford.attacks().values())
    assert afford.refusals()['apgd'] == 'takes 101 model calls, 50 are allowed'
    spent = ThreatModel('untargeted', 'white', Capability('l0', 20, budget=10**9))
    assert spent.refusals()['jsma'].startswith('takes as many as needed model calls')


def test_every_attack_applies_or_is_refused_with_a_reason():
    for goal in ('untargeted', 'targeted', 'confidence'):
        for knowledge in ('white', 'gray', 'transfer', 'score', 'decision'):
            threat = ThreatModel(goal, knowledge, BALL)
            rows = {entry.name for entry in threat.entries()}
            refused = threat.refusals()
            assert rows == set(threat.attacks())
            assert rows | set(refused) == {e.name for e in attacks.catalogue()}
            assert not rows & set(refused)
            assert all(refused.values())


def test_the_attacks_run_within_the_threat_model():
    model = zoo.mlp((4, 4, 1), 3, (8,))
    f = models.logits_fn(model, *model.init(jax.random.key(0)))
    x = np.asarray(jax.random.uniform(jax.random.key(1), (6, 4, 4, 1)))
    y = np.asarray(jnp.argmax(f(x), axis=1))
    few = Capability('linf', 0.3, queries=70)
    threat = ThreatModel('untargeted', 'score', few)
    found = evaluation.evaluate(f, x, y, threat.attacks(), key=jax.random.key(2))
    assert not found.rejected.any()
    assert found.success.any()
    aimed = ThreatModel('targeted', 'white', Capability('linf', 0.3, budget=30))
    target = jnp.asarray((y + 1) % 3)
    key = jax.random.key(3)
    reached = {}
    for name in ('fgsm', 'bim'):
        attack = aimed.attacks()[name]
        x_adv = attack(f, key, jnp.asarray(x), jnp.asarray(y), target=target)
        reached[name] = losses_towards(f, x_adv, target) - losses_towards(f, x, target)
    assert min(reached.values()) > 0


def losses_towards(f, x, target):
    logits = jax.nn.log_softmax(f(x))
    return float(jnp.take_along_axis(logits, target[:, None], axis=1).mean())


def test_it_is_a_value():
    one, two = ThreatModel('targeted', 'gray', BALL), ThreatModel('targeted', 'gray')
    assert one == ThreatModel('targeted', 'gray', Capability('linf', 0.1))
    assert one != two
    assert len({one, two, one}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.goal = 'untargeted'  # pyrefly: ignore[read-only]


@pytest.mark.parametrize(
    ('make', 'words'),
    [
        (lambda: ThreatModel('win'), "goal must be one of .*got 'win'"),
        (lambda: ThreatModel(knowledge='black'), "knowledge must be one of .*'black'"),
        (lambda: ThreatModel(capability=0.3), 'capability must be a Capability'),
        (lambda: Capability('l3'), "norm must be one of .*got 'l3'"),
        (lambda: Capability(eps=-1), 'eps must be a radius >= 0, got -1'),
        (lambda: Capability(eps=math.nan), 'eps must be a radius >= 0, got nan'),
        (lambda: Capability(bounds=(1, 0)), r'bounds must be .*got \(1, 0\)'),
        (lambda: Capability(queries=0), 'queries must be None or an integer >= 1'),
        (lambda: Capability(budget=2.5), 'budget must be None or an integer >= 1'),
        (lambda: Capability('spatial').ball, "'spatial' has no ball"),
    ],
)
def test_bad_arguments_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()

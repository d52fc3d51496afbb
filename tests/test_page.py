"""The report page and its figures."""

import base64
import copy
import hashlib
import html.parser
import io
import json
import math
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from typing import NamedTuple

import numpy as np
import pytest

from advjax import report
from advjax.report import cards, charts, drawing, page, words
from advjax.report.headline import headline

SPACE = '\u00a0'


def net(name='standard', clean=0.972, robust=0.031, **more):
    return {
        'name': name,
        'description': f'how {name} was trained',
        'method': name,
        'adversarial': name in ('pgd_at', 'trades'),
        'clean_accuracy': clean,
        'robust_accuracy': robust,
        'examples': 360,
        **more,
    }


def rich_net(name, clean, robust):
    attacks = [
        {
            'name': attack,
            'description': f'about {attack}',
            'robust_accuracy': robust + 0.01,
            'found': 341,
            'verified': 340,
            'rejected': 1,
            'max_norm': 0.2,
            'model_calls': 1200,
        }
        for attack in ('fgsm', 'pgd_restarts', 'margin')
    ]
    sizes = np.linspace(0, 0.3, 16).tolist()
    history = [
        {
            'epoch': epoch,
            'train_loss': 2.0 / (1 + epoch),
            'held_out_clean': clean,
            'held_out_robust': robust,
        }
        for epoch in range(4)
    ]
    return net(
        name,
        clean,
        robust,
        attacks=attacks,
        curve={'eps': sizes, 'accuracy': [clean - size for size in sizes]},
        history=history,
        train_seconds=75.2,
        events=[f'{name} went well'],
    )


def two_nets(**more):
    return {
        'title': 'A test of the page',
        'dataset': 'digits',
        'class_names': list('0123456789'),
        'threat_model': {'norm': 'Linf', 'eps': 0.2, 'bounds': [0, 1]},
        'command': 'python -m experiments train --seed 7',
        'seed': 7,
        'created': '2025-01-02T03:04:05+00:00',
        'wall_seconds': 4000.0,
        'environment': {'python': '3.12.1', 'jax': '0.12.0', 'device': 'cpu'},
        'nets': [rich_net('standard', 0.972, 0.031), rich_net('pgd_at', 0.958, 0.853)],
        'proofs': [
            {'claim': 'All inside the ball', 'checked': 628, 'failed': 0},
            {'claim': 'Nobody looked', 'checked': 0, 'failed': 0, 'detail': 'why'},
        ],
        **more,
    }


def some_examples(names=('standard', 'pgd_at'), n=3, shape=(8, 8, 1), classes=10):
    rng = np.random.default_rng(0)
    clean = rng.uniform(size=(n, *shape)).astype(np.float32)
    labels = np.arange(n) % classes
    nets = [
        {
            'name': name,
            'adversarial': np.clip(clean + 0.2 * (-1) ** k, 0, 1),
            'clean_prediction': labels,
            'prediction': labels if k else (labels + 1) % classes,
            'clean_confidence': np.full(n, 0.987),
            'confidence': np.full(n, 0.654),
        }
        for k, name in enumerate(names)
    ]
    return {'clean': clean, 'labels': labels, 'nets': nets}


class Reader(html.parser.HTMLParser):
    """Collects what a browser would show or fetch, and checks that tags close."""

    EMPTY = ('meta', 'link', 'img', 'br')

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.addresses, self.alts = [], [], [], []
        self.tags, self.words = [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        if tag not in self.EMPTY:
            self.open.append(tag)
        if 'id' in attrs:
            self.ids.append(attrs['id'])
        if tag in ('img', 'svg'):
            self.alts.append(attrs.get('alt') or attrs.get('aria-label'))
        for key in ('src', 'href', 'xlink:href', 'srcset', 'action', 'data'):
            if key in attrs:
                self.addresses.append(attrs[key])

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.EMPTY:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != 'style':
            self.words.append(data)

    @property
    def text(self):
        return ' '.join(' '.join(self.words).replace(SPACE, '_').split())


@pytest.fixture(scope='module')
def full():
    return page.render(two_nets(), some_examples())


def test_the_page_tells_the_whole_story_in_order(full):
    text = Reader(full).text
    story = [
        'A test of the page',
        'from 97.2_% to 3.1_% right answers',
        'keeps 85.3_%, down from 95.8_%',
        'how standard was trained',
        'This is: 0',
        '✗ fooled',
        '98.7_%',
        '65.4_%',
        '✓ still right',
        'guesses is right about 10.0_%',
        'ε = 0.2, the size used on this page',
        'worst case of all',
        'about pgd_restarts',
        '341 340 1 0.2 1 200',
        'standard went well',
        'All inside the ball',
        '628 checked, none failed',
        'nothing was checked; why',
        'Robust accuracy',
        'Restarts',
        'python -m experiments train --seed 7',
        'seed 7',
        '1_h 6_min',
        '1_min 15_s',
        'jax 0.12.0',
        '2025-01-02T03:04:05',
    ]
    place = 0
    for part in story:
        found = text.find(part, place)
        # The headline precedes its details, the glossary the command, and so on.
        assert found >= 0, (part, part in text)
        place = found
    assert 'Square attack' not in text  # was not used
    assert 'imperceptible' not in text.lower()


def test_the_page_fetches_nothing_and_runs_nothing(full):
    reader = Reader(full)
    assert {a for a in reader.addresses if not re.match('#|data:', a)} == set()
    assert not re.search(r'url\((?!#)|@import|@font-face', full)
    assert 'script' not in reader.tags
    assert not re.search(r'<[^>]+\son\w+=', full)
    assert "default-src 'none'" in full
    assert len(full.encode()) < 2e6


def test_every_picture_has_words_and_every_identifier_is_unique(full):
    reader = Reader(full)
    assert len(reader.alts) == 3 * 2 * 3 + 3 * 2  # pictures, and charts in two widths
    assert all(reader.alts)
    assert len(set(reader.ids)) == len(reader.ids)
    # What a drawing refers to, it defines itself.
    for svg in re.findall(r'<svg.*?</svg>', full, re.DOTALL):
        used = set(re.findall(r'(?:url\(|href=")#([^")]+)', svg))
        assert used
        assert used <= set(re.findall(r' id="([^"]+)"', svg))


def test_same_input_gives_the_same_bytes_in_another_process(full, tmp_path):
    assert page.render(two_nets(), some_examples()) == full
    # A reader's own matplotlib settings, and another hash seed, change nothing.
    (tmp_path / 'matplotlibrc').write_text('axes.linewidth: 9\nxtick.major.size: 20\n')
    code = (
        'import sys; sys.path.insert(0, "tests"); import hashlib, test_page as t; '
        'text = t.page.render(t.two_nets(), t.some_examples()); '
        'print(hashlib.sha256(text.encode()).hexdigest())'
    )
    environment = {
        **os.environ,
        'MATPLOTLIBRC': str(tmp_path / 'matplotlibrc'),
        'PYTHONHASHSEED': '77',
    }
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    environment['PYTHONPATH'] = root
    run = subprocess.run(
        [sys.executable, '-c', code],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == hashlib.sha256(full.encode()).hexdigest()


def test_drawing_leaves_matplotlib_as_it_was():
    import matplotlib

    before = dict(matplotlib.rcParams)
    drawing.to_svg(charts.robustness_curves([('a', [0, 1], [1, 0])]))
    assert dict(matplotlib.rcParams) == before


def test_everything_from_outside_is_escaped():
    evil = '<script>alert("1")</script>{{ 7 * 7 }}$x$&'
    results = json.loads(json.dumps(two_nets()).replace('standard', 'PLACE'))
    results = json.loads(
        json.dumps(results).replace('PLACE', json.dumps(evil)[1:-1].replace('/', '\\/'))
    )
    for key in ('title', 'dataset', 'command', 'created', 'seed'):
        results[key] = evil
    results['class_names'] = [evil] * 10
    results['environment'] = {evil: evil}
    results['proofs'] = [
        {'claim': evil, 'checked': 2, 'failed': failed, 'detail': evil}
        for failed in (0, 1)
    ]
    results['threat_model']['norm'] = evil
    for attack in results['nets'][0]['attacks']:
        attack.update(name=evil, description=evil)
    text = page.render(results, some_examples((evil, 'pgd_at')))
    reader = Reader(text)
    assert 'script' not in reader.tags
    assert '49' not in reader.text.split()
    assert evil.replace(' ', '') in reader.text.replace(' ', '')


def story(*nets, **more):
    return headline({**two_nets(**more), 'nets': list(nets)}).replace(SPACE, '_')


def test_headline_of_a_defence_that_works():
    assert story(net(), net('pgd_at', 0.958, 0.853)) == (
        'A change of at most 0.2 per pixel takes the normally trained network from '
        '97.2_% to 3.1_% right answers; the adversarially trained one keeps 85.3_%, '
        'down from 95.8_%.'
    )


@pytest.mark.parametrize(
    ('robust', 'words', 'never'),
    [
        (0.30, 'does better but falls too, from 95.8_% to 30.0_%', 'keeps'),
        (0.045, 'no clear difference with 360 images', 'better'),
        (0.031, 'does no better: it goes from 95.8_% to 3.1_%', 'keeps'),
        (0.958, 'the adversarially trained one stays at 95.8_%', 'keeps'),
        (0.97, 'it is 95.8_% without and 97.0_% with it', 'keeps'),
        (math.nan, 'it is 95.8_% without and –', 'keeps'),
        (None, 'it is 95.8_% without and –', 'keeps'),
    ],
)
def test_headline_claims_no_more_than_the_numbers(robust, words, never):
    text = story(net(), net('pgd_at', 0.958, robust))
    assert words in text
    assert never not in text
    assert '97.2_% to 3.1_%' in text


def test_headline_of_a_defence_that_harms_and_of_an_attack_that_fails():
    text = story(net(robust=0.6), net('pgd_at', 0.9, 0.2))
    assert 'the adversarially trained one does worse: it goes from 90.0_%' in text
    text = story(net(robust=0.972))
    assert 'leaves the normally trained network at 97.2_% right answers.' in text


def test_headline_names_nets_that_it_cannot_describe():
    text = story(net(), net('lipschitz', 0.9, 0.8))
    assert 'the network “standard”' in text
    assert 'the network “lipschitz” keeps 80.0_%' in text
    assert 'adversarially' not in text
    # The order does not matter, and of several defences the best is compared.
    text = story(net('pgd_at', 0.9, 0.1), net(), net('trades', 0.9, 0.8))
    assert text.index('97.2') < text.index('80.0')


@pytest.mark.parametrize(
    ('norm', 'eps', 'words'),
    [
        ('Linf', 8 / 255, 'A change of at most 8/255 per pixel'),
        ('L2', 0.5, 'A change of Euclidean length at most 0.5'),
        ('L0', 10, 'A change of at most 10 pixels'),
        ('other', 0.1, 'A change of size at most 0.1'),
        ('Linf', math.nan, 'The attack takes'),
    ],
)
def test_headline_says_what_the_attacker_may_do(norm, eps, words):
    assert story(net(), threat_model={'norm': norm, 'eps': eps}).startswith(words)


def test_numbers_are_rounded_but_never_to_a_claim():
    assert words.percent(0.97249) == f'97.2{SPACE}%'
    assert words.percent(0) == f'0.0{SPACE}%'
    assert words.percent(1) == f'100.0{SPACE}%'
    assert words.percent(0.9999).startswith('>')
    assert words.percent(0.0001).startswith('<')
    for nothing in (None, math.nan, math.inf, 'x', [1, 2]):
        for write in (words.percent, words.integer, words.decimal, words.duration):
            assert write(nothing) == words.DASH
    assert words.duration(59.99) == f'1{SPACE}min 0{SPACE}s'


def test_names_may_be_in_any_script():
    results = two_nets(class_names=['猫', 'собака'], nets=[rich_net('모델', 0.9, 0.1)])
    words = Reader(page.render(results, some_examples(['모델'], n=2))).text
    assert 'This is: 猫' in words
    assert words.count('모델, attacked') == 2  # in both widths of the chart


def test_a_failed_check_is_loud_and_at_the_top(full):
    assert 'role="alert"' not in full
    results = two_nets()
    results['proofs'][0]['failed'] = 3
    text = page.render(results)
    assert text.index('role="alert"') < text.index('<h1>')
    words = Reader(text).text
    assert '1 of 2 checks failed' in words
    assert 'All inside the ball: not so for 3 of 628' in words
    assert 'All inside the ball: failed 3 of 628 failed' in words
    # A check of nothing is not a success either.
    assert page._proof({'checked': 0, 'failed': 0})['state'] == 'open'
    assert page._proof({'checked': 5})['state'] == 'open'
    assert page._proof({'checked': 5, 'failed': 0})['state'] == 'passed'


def test_one_bare_net_makes_a_page():
    bare = {'nets': [{'name': 'n', 'clean_accuracy': 0.5, 'robust_accuracy': 0.25}]}
    reader = Reader(page.render(bare, None))
    assert 'svg' not in reader.tags
    assert '50.0_% to 25.0_%' in reader.text
    for part in ('None', 'nan', 'Undefined', 'What was checked', 'This is'):
        assert part not in reader.text


def test_no_examples_no_history_and_what_is_not_finite():
    results = two_nets(class_names=['cat', 'dog'])
    first = results['nets'][0]
    first['history'] = []
    first['attacks'][0].update(robust_accuracy=math.nan, max_norm=math.inf, found=None)
    del first['attacks'][1]['model_calls']
    first['curve']['accuracy'][3] = math.nan
    results['nets'][1]['history'][2].update(held_out_clean=None, train_loss=math.inf)
    results['nets'][1]['train_seconds'] = math.nan
    reader = Reader(page.render(results, some_examples(n=0)))
    assert 'This is' not in reader.text
    assert 'guesses is right about 50.0_%' in reader.text
    assert words.DASH in reader.text
    assert not re.search(r'\b(nan|inf|None)\b', reader.text)


class Written(NamedTuple):
    """A page of given results, for ``report.write``."""

    figures: dict
    examples: dict | None = None

    def results(self):
        return self.figures

    def html(self):
        return page.render(self.figures, self.examples)


def test_many_classes_with_long_names_and_colour(tmp_path):
    names = [f'the class of all things numbered {k}, and more' for k in range(100)]
    results = two_nets(class_names=names)
    examples = some_examples(n=8, shape=(32, 32, 3), classes=100)
    examples['labels'] = examples['labels'] + 96  # some beyond the last name
    path = tmp_path / 'a folder with spaces' / 'report.html'
    report.write(Written(results, examples), path.parent)
    text = path.read_text(encoding='utf-8')
    assert path.stat().st_size < 2e6
    assert names[97] in text
    assert 'This is: 100' in Reader(text).text
    assert sorted(os.listdir(path.parent)) == ['report.html', 'results.json']
    assert json.loads((path.parent / 'results.json').read_text()) == results


def test_the_number_and_size_of_examples_is_limited():
    examples = some_examples(n=14, shape=(200, 100, 3))
    text = page.render(two_nets(), examples)
    assert len(text) < 2e6
    assert 'The first 12 of 14 examples are shown.' in text
    assert 'thinned out' in text


def test_two_attacks_of_one_name_are_two_bars():
    results = two_nets()
    for attack, accuracy in zip(
        results['nets'][0]['attacks'], (0.11, 0.22, 0.33), strict=True
    ):
        attack.update(name='same', robust_accuracy=accuracy)
    words = Reader(page.render(results)).text
    for part in ('11.0 %', '22.0 %', '33.0 %'):
        assert part in words


def test_a_failed_write_leaves_the_old_page(tmp_path, monkeypatch):
    path = tmp_path / 'report.html'
    path.write_text('old')

    def fail(*_):
        raise OSError('disk')

    monkeypatch.setattr(os, 'replace', fail)
    with pytest.raises(OSError, match='disk'):
        report.write(Written({'nets': [net()]}), tmp_path)
    assert path.read_text() == 'old'
    assert os.listdir(tmp_path) == ['report.html']


@pytest.mark.parametrize(
    ('results', 'words'),
    [
        ({}, "'nets'"),
        ({'nets': []}, "'nets'"),
        ({'nets': [{'name': 'a', 'clean_accuracy': 1}]}, 'robust_accuracy'),
        ({'nets': [net(), {'clean_accuracy': 1}]}, r"\['nets'\]\[1\].*name"),
        ({'nets': [net(curve={'eps': [0, 1], 'accuracy': [1]})]}, 'got 1 and 2'),
    ],
)
def test_results_that_are_not_results(results, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        report.write(Written(results), tmp_path)
    assert not os.listdir(tmp_path)


def test_examples_that_do_not_fit():
    examples = some_examples()
    shorter = copy.deepcopy(examples)
    shorter['nets'][1]['adversarial'] = examples['clean'][:2]
    flat = {**examples, 'clean': examples['clean'].reshape(3, -1)}
    labels = {**examples, 'labels': examples['labels'][:2]}
    for bad in (shorter, flat, labels):
        with pytest.raises(ValueError, match='examples must hold'):
            page.render(two_nets(), bad)
    with pytest.raises(ValueError, match='image must be'):
        charts.picture(np.zeros((4, 4, 2)))


@pytest.mark.parametrize(
    ('largest', 'factor'),
    [(0.2, 2.5), (8 / 255, 15), (1 / 255, 100), (0.5, 1), (0.9, 0.5), (0, 1)],
)
def test_amplification_fills_the_grey_scale(largest, factor):
    delta = np.float32(largest) * np.array([1, -1, 0, np.nan], np.float32)
    assert charts.amplification(delta) == factor
    assert charts.amplification(np.zeros(3), -delta) == factor
    assert factor * largest <= 0.5 + 1e-4
    assert largest == 0 or factor * largest > 0.25 or factor == 0.5


def test_pictures_keep_their_pixels():
    from PIL import Image

    image = np.array([[0, 0.5], [1, 2], [np.nan, -1]], np.float32)
    assert charts.picture(image).tolist() == [[0, 128], [255, 255], [0, 0]]
    assert charts.picture(np.zeros((200, 100, 3)), limit=80).shape == (67, 34, 3)
    data = base64.b64decode(cards.data_address(image[..., None]).split(',')[1])
    enlarged = np.asarray(Image.open(io.BytesIO(data)))
    assert enlarged.shape == (96, 64)  # 32 times, every pixel a square
    np.testing.assert_array_equal(
        enlarged, np.kron(charts.picture(image), np.ones((32, 32), np.uint8))
    )


def test_the_change_is_drawn_around_grey_with_one_factor():
    examples = some_examples(n=2)
    for one, step in zip(examples['nets'], (0.1, -0.02), strict=True):
        one['adversarial'] = examples['clean'] + np.float32(step)
    found, factor, _ = cards.cards_of(examples, [], two_nets()['nets'])
    assert factor == 5
    expected = np.full((8, 8, 1), 0.5)
    for card in found:
        changes = [one['change'] for one in card['nets']]
        shown = (cards.data_address(expected + step) for step in (0.5, -0.1))
        assert changes == list(shown)


def test_svg_is_well_formed_and_takes_the_colours_of_the_page():
    curves = [
        ('one', [0, 0.1], [1, 0.5]),
        ('_two <id="x"> $y$ : #005a8f', [0, 0.1], [1, 0]),
    ]
    figure = charts.robustness_curves(curves, 0.05, chance=0.1)
    svg = drawing.to_svg(figure, alt='a "title" & more')
    root = ElementTree.fromstring(svg)
    assert root.attrib['aria-label'] == 'a "title" & more'
    assert 'var(--figure-1, #005a8f)' in svg
    assert not re.search(r'stroke: #', svg)
    # Text is neither a formula nor a place for identifiers or colours.
    texts = [' '.join(item.itertext()) for item in root.iter() if 'text' in item.tag]
    assert ' _two <id="x"> $y$ : #005a8f' in texts
    assert drawing.to_svg(figure, alt='a "title" & more') == svg
    other = drawing.to_svg(charts.robustness_curves(curves[:1]))
    assert not set(re.findall(r' id="([^"]+)"', svg)) & set(
        re.findall(r' id="([^"]+)"', other)
    )


def texts_of(figure):
    """Draws a figure; returns its visible texts and where they are."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    # Ticks beyond the ends of an axis exist but are not drawn.
    root = ElementTree.fromstring(drawing.to_svg(figure))
    drawn = {''.join(item.itertext()) for item in root.iter() if 'text' in item.tag}
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    found = []
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text() in drawn - {''}:
            box = text.get_window_extent(canvas.get_renderer())
            found.append((text.get_text(), box))
    assert len(found) > 5
    return found


@pytest.mark.parametrize('width', report.WIDTHS)
@pytest.mark.parametrize('long', [False, True])
def test_no_text_of_a_figure_overlaps_another_or_leaves_it(width, long):
    name = 'a net with an extraordinarily long name, longer than the page' * long or 'a'
    results = two_nets(nets=[rich_net(name, 1.0, 0.0), rich_net('b' + name, 0.96, 0.9)])
    nets = results['nets']
    curves = page._curves(nets, results['threat_model'], 10)
    bars = page._bars(nets)
    figures = [
        charts.robustness_curves(curves['rows'], width=width, **curves['more']),
        charts.attack_bars(bars['rows'], width=width, **bars['more']),
        charts.training_curves(page._training(nets)['rows'], width=width),
    ]
    for figure in figures:
        found = texts_of(figure)
        frame = figure.bbox.padded(1)
        for place, (text, box) in enumerate(found):
            assert frame.x0 <= box.x0, text
            assert box.x1 <= frame.x1, text
            assert frame.y0 <= box.y0, text
            assert box.y1 <= frame.y1, text
            for other, rival in found[place + 1 :]:
                assert not box.padded(-0.5).overlaps(rival.padded(-0.5)), (text, other)


def test_bars_are_as_long_as_the_numbers_and_the_worst_case_is_last():
    rows = page._bars(two_nets()['nets'])['rows']
    assert [name for name, _ in rows[0][1]] == [
        'no attack',
        'fgsm',
        'pgd_restarts',
        'margin',
        'worst case of all',
    ]
    figure = charts.attack_bars([('n', [('a', 0.25), ('b', math.nan)])])
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [25, 0]
    assert [text.get_text() for text in axes.texts] == ['25.0 %', '–']


def test_grid_draws_every_example_and_wraps():
    images = np.linspace(0, 1, 5 * 16).reshape(5, 4, 4, 1)
    rows = [
        {'title': 'original', 'images': images, 'captions': list('abcde')},
        {'title': 'attacked', 'images': images[::-1]},
    ]
    figure = charts.adversarial_grid(rows, columns=2)
    assert len(figure.axes) == 10
    shown = [axes.images[0].get_array() for axes in figure.axes]
    np.testing.assert_array_equal(shown[1], charts.picture(images[1]))
    texts = [text.get_text() for text in figure.texts]
    assert [text for text in texts if len(text) == 1] == list('abcde')
    assert 'image-rendering:pixelated' in drawing.to_svg(figure).replace(' ', '')
    with pytest.raises(ValueError, match='equally many'):
        charts.adversarial_grid([rows[0], {'images': images[:2]}])
    with pytest.raises(ValueError, match='equally many'):
        charts.adversarial_grid([])


def test_a_cascade_is_said_to_be_one():
    attack = {'name': 'apgd_ce', 'robust_accuracy': 0.5, 'verified': 1}
    net = {'name': 'n', 'clean_accuracy': 0.9, 'robust_accuracy': 0.5}
    for survivors in (False, True):
        whole = {'nets': [{**net, 'attacks': [attack], 'survivors': survivors}]}
        assert ('took turns' in page.render(whole)) == survivors

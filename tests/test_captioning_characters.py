"""Captions of a language without blanks, from training to their scores."""

import json

import numpy as np
import PIL.Image
import pytest

from captioning import data
from captioning import inference
from captioning import languages
from captioning import main
from captioning import metrics
from captioning import sources
from captioning import vocabulary
from configs import event_captions as event_config
from configs import scenes
from video import caption as video_caption
from video import data as video_data
from video.captioning import inference as video_inference
from video.sources import clips as clips_lib

CAPTIONS = ('一只红色的狗在跑', '一只狗在2个球旁边')
SMALL = {
  'data.tokenizer': 'characters',
  'data.resize': 16,
  'data.crop': 16,
  'data.max_length': 12,
  'decoder.features': 8,
  'decoder.embedding': 8,
  'decoder.attention': 8,
  'decoding.max_length': 12,
  'best_metric': 'CIDEr',
  'batch_size': 4,
  'eval_batch_size': 4,
  'num_steps': 6,
  'optimizer.schedule': 'constant',
  'optimizer.learning_rate': 0.1,
  'optimizer.warmup_steps': 0,
}
COUNTS = dict(train=8, validation=2, test=4)
# The figures' font has no Chinese.
pytestmark = pytest.mark.filterwarnings('ignore:Glyph .* missing:UserWarning')


@pytest.fixture
def config(monkeypatch, tmp_path):
  """Returns a small config of a module, with some fields."""
  monkeypatch.setenv('PATH', str(tmp_path))  # No Java.

  def make(module, **fields):
    config = module.get_config()
    config.update_from_flattened_dict(
      {**SMALL, 'data.data_dir': str(tmp_path / 'data'), **fields}
    )
    return config

  return make


def check(workdir, found, captions):
  """Checks the vocabulary, the captions and the scores of a run."""
  words = vocabulary.Vocabulary.load(workdir / vocabulary.FILE)
  assert words.tokenizer == 'characters'
  assert {'狗', '红', '2'} <= {*words.words}
  assert found.vocabulary == words
  texts = {str(i): text for i, text in enumerate(captions)}
  assert not any(' ' in text for text in texts.values())
  assert any(len(text) > 3 for text in texts.values())
  scores = json.loads((workdir / 'results.json').read_text())['test']
  expected = metrics.score(
    dict.fromkeys(texts, list(CAPTIONS)), texts, tokenizer='characters'
  )
  for name, score in expected['corpus'].items():
    np.testing.assert_allclose(scores['scores'][name], score, rtol=1e-6)
  frequent = scores['most_frequent_caption']
  assert frequent['scores']['BLEU-1'] == pytest.approx(1)


def test_images(config, tmp_path):
  files = []
  for split, count in COUNTS.items():
    for i in range(count):
      path = tmp_path / f'{split}-{i}.png'
      PIL.Image.new('RGB', (16, 16), (i * 20, 0, 0)).save(path)
      files.append(sources.CaptionedFile(path.stem, path, split, CAPTIONS))
  data.prepare('few', files, tmp_path / 'data')
  fields = {
    'data.name': 'captioned_images/few',
    'encoder.width': 4,
    'encoder.strides': (2,),
    'loss.visual_words': 0.0,
  }
  workdir = tmp_path / 'run'
  main.train_and_evaluate(config(scenes, **fields), workdir)
  texts = json.loads((workdir / 'results/test.captions.json').read_text())
  found = inference.load(workdir)
  check(workdir, found, [entry['caption'] for entry in texts])
  # The words of the captions are those of the attention.
  (image,) = found.caption_with_attention([np.zeros((16, 16, 3), np.uint8)])
  best = image.captions[0]
  assert list(best.words) == languages.characters(best.text)
  changes = {'start_from': str(workdir), 'data.tokenizer': 'words'}
  with pytest.raises(ValueError, match='data.tokenizer=characters'):
    main.train_and_evaluate(
      config(scenes, **fields, **changes), tmp_path / 'other'
    )


def test_clips(config, tmp_path):
  rng = np.random.default_rng(0)
  clips = [
    clips_lib.Clip(
      id=f'{split}-{i}',
      split=split,
      frames=rng.integers(0, 255, (3, 16, 16, 3), np.uint8),
      captions=CAPTIONS,
    )
    for split, count in COUNTS.items()
    for i in range(count)
  ]
  video_data.prepare('captioned_clips/few', clips, tmp_path / 'data', rate=5.0)
  fields = {
    'data.name': 'captioned_clips/few',
    'data.flip_events': False,
    'data.num_frames': 3,
    'encoder.channels': (4, 4),
    'encoder.features': 8,
    'decoder.encoder_features': 8,
    'frame_labels': 0,
  }
  workdir = tmp_path / 'run'
  video_caption.train_and_evaluate(config(event_config, **fields), workdir)
  texts = json.loads((workdir / 'results/test.captions.json').read_text())
  found = video_inference.load(workdir)
  check(workdir, found, [entry['caption'] for entry in texts])

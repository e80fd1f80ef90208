import pytest

from captioning import feature_cache
from configs import coco
from configs import msrvtt_attention

IMAGES = ('resize', 'crop')
CLIPS = ('num_frames', 'every', 'resize', 'crop')


@pytest.mark.parametrize(
  ('module', 'fields', 'expected'),
  [
    (coco, IMAGES, '06bf0dc0831682a7'),
    (msrvtt_attention, CLIPS, '4441db91f774456d'),
  ],
)
def test_caches_of_before_keep_their_names(module, fields, expected, tmp_path):
  encoder = tmp_path / feature_cache.ENCODER_FILE
  encoder.write_bytes(b'weights')
  config = module.get_config()

  def key(fingerprint='0123456789abcdef'):
    return feature_cache.key(
      config, encoder, fingerprint=fingerprint, fields=fields
    )

  assert key() == expected
  assert feature_cache.split_directory(tmp_path, expected, 'train') == (
    tmp_path / f'features-{expected}' / 'train'
  )
  # Another data set, other preprocessing or another encoder: another name.
  names = {key(), key('other')}
  config.data.flip = not config.data.flip
  names.add(key())
  config.data.crop += 1
  names.add(key())
  config.encoder.depth = 18
  names.add(key())
  encoder.write_bytes(b'others')
  names.add(key())
  assert len(names) == 5, 'flipping alone does not count'

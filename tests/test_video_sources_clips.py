import collections
import json

import numpy as np
import pytest
from PIL import Image

from video import frames
from video.sources import clips as clips_lib


def save_clip(path, shade=0):
  """Two small frames."""
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.full((2, 16, 16, 3), shade, np.uint8)
  if path.suffix == '.npy':
    np.save(path, pixels)
  elif path.suffix:
    frames.write(path, pixels)
  else:
    path.mkdir()
    for i, image in enumerate(pixels):
      Image.fromarray(image).save(path / f'{i:02d}.png')
  return path


def by_id(clips):
  return {clip.id: clip for clip in clips}


def test_classes_are_folders_of_files_and_of_frames(tmp_path):
  save_clip(tmp_path / 'jump' / 'a.mp4')
  save_clip(tmp_path / 'jump' / 'b')
  save_clip(tmp_path / 'run' / 'v_run_g03_c01.npy')
  (tmp_path / 'jump' / 'notes.txt').write_text('no clip')
  clips, report = clips_lib.classes(tmp_path)
  assert not report
  assert [(c.id, c.label, c.group, c.frames.name) for c in clips] == [
    ('jump/a.mp4', 'jump', '', 'a.mp4'),
    ('jump/b', 'jump', '', 'b'),
    ('run/v_run_g03_c01.npy', 'run', 'g03', 'v_run_g03_c01.npy'),
  ]
  assert [c.split for c in clips] == [
    clips_lib.split_of(name) for name in ('jump/a.mp4', 'jump/b', 'g03')
  ]


def test_folders_of_splits_are_splits(tmp_path):
  for name in ('train/jump/a.npy', 'val/jump/a.npy', 'test/run/b.npy'):
    save_clip(tmp_path / name)
  clips, _ = clips_lib.classes(tmp_path)
  assert {c.id: (c.split, c.label) for c in clips} == {
    'train/jump/a.npy': ('train', 'jump'),
    'validation/jump/a.npy': ('validation', 'jump'),
    'test/run/b.npy': ('test', 'run'),
  }


def test_names_are_shared_out_80_10_10():
  counts = collections.Counter(clips_lib.split_of(str(i)) for i in range(3000))
  assert abs(counts['validation'] - 300) < 60
  assert abs(counts['test'] - 300) < 60


def test_all_that_is_wrong_with_classes_is_in_one_error(tmp_path):
  save_clip(tmp_path / 'train' / 'jump' / 'v_jump_g01_c01.npy')
  save_clip(tmp_path / 'test' / 'jump' / 'v_jump_g01_c02.npy')
  save_clip(tmp_path / 'test' / 'jump' / 'good.npy')
  (tmp_path / 'test' / 'jump' / 'bad.mp4').write_bytes(b'nothing')
  (tmp_path / 'test' / 'run').mkdir()
  (tmp_path / 'other').mkdir()
  with pytest.raises(ValueError, match='--skip_bad') as error:
    clips_lib.classes(tmp_path)
  for problem in (
    f'beside the folders of the splits (1):\n  {tmp_path / "other"}',
    f'class without clips (1):\n  {tmp_path / "test" / "run"}',
    'cannot be decoded (1):\n  cannot decode '
    f'{tmp_path / "test" / "jump" / "bad.mp4"}',
    'group in more than one split (1):\n  jump, g01: test, train',
  ):
    assert problem in str(error.value)
  clips, report = clips_lib.classes(tmp_path, skip_bad=True)
  assert [c.id for c in clips] == ['test/jump/good.npy']
  assert report in str(error.value)
  with pytest.raises(ValueError, match='is not a directory: pass that of fol'):
    clips_lib.classes(tmp_path / 'nowhere')


def ucf101(root):
  """Two classes, nine groups to train on and one to test on."""
  lists = root / 'lists'
  lists.mkdir(parents=True)
  (lists / 'classInd.txt').write_text('1 Jump\r\n2 Run\r\n')
  parts = {'train': range(8, 17), 'test': range(1, 2)}
  for split, groups in parts.items():
    lines = []
    for number, name in enumerate(('Jump', 'Run'), start=1):
      for group in groups:
        file = f'{name}/v_{name}_g{group:02d}_c01.avi'
        save_clip(root / 'UCF-101' / file.replace('.avi', '.npy'))
        (root / 'UCF-101' / file.replace('.avi', '.npy')).rename(
          root / 'UCF-101' / file
        )
        lines.append(f'{file} {number}' if split == 'train' else file)
    (lists / f'{split}list01.txt').write_text('\r\n'.join(lines) + '\r\n')
  return root / 'UCF-101', lists


@pytest.fixture
def undecoded(monkeypatch):
  """Files that are no videos pass for some."""
  monkeypatch.setattr(frames, 'stream', lambda path: iter(()))


def test_ucf101_has_official_splits_and_groups_for_validation(
  tmp_path, undecoded
):
  clips, report = clips_lib.ucf101(*ucf101(tmp_path))
  assert not report and len(clips) == 20
  groups = collections.defaultdict(set)
  for clip in clips:
    groups[clip.split].add(clip.group)
  assert groups == {
    'train': {'g08', 'g09', 'g10', 'g11', 'g13', 'g14', 'g15', 'g16'},
    'validation': {'g12'},
    'test': {'g01'},
  }
  first = by_id(clips)['v_Jump_g08_c01']
  assert first.label == 'Jump' and first.frames.is_file()


def test_files_of_ucf101_may_differ_from_its_lists_in_capitals(
  tmp_path, undecoded
):
  videos, lists = ucf101(tmp_path)
  (videos / 'Run' / 'v_Run_g01_c01.avi').rename(
    videos / 'Run' / 'v_RUN_g01_c01.avi'
  )
  clips, _ = clips_lib.ucf101(videos, lists)
  found = by_id(clips)['v_Run_g01_c01']
  assert found.frames.name == 'v_RUN_g01_c01.avi'


def test_what_is_wrong_with_lists_of_ucf101_is_said(tmp_path, undecoded):
  videos, lists = ucf101(tmp_path)
  (videos / 'Run' / 'v_Run_g01_c01.avi').unlink()
  with open(lists / 'trainlist01.txt', 'a') as file:
    file.write(
      'Walk/v_Walk_g08_c01.avi 3\nJump/odd.avi 1\n'
      'Jump/v_Jump_g08_c01.avi 1\nRun/v_Run_g01_c02.avi 2\n'
    )
  save_clip(videos / 'Run' / 'v_Run_g01_c02.npy').rename(
    videos / 'Run' / 'v_Run_g01_c02.avi'
  )
  (lists / 'testlist01.txt').write_text(
    (lists / 'testlist01.txt').read_text() + 'Run/v_Run_g01_c03.avi\n'
  )
  save_clip(videos / 'Run' / 'v_Run_g01_c03.npy').rename(
    videos / 'Run' / 'v_Run_g01_c03.avi'
  )
  with pytest.raises(ValueError) as error:
    clips_lib.ucf101(videos, lists)
  for problem in (
    'or no class (2):\n  trainlist01.txt: Walk/v_Walk_g08_c01.avi 3\n'
    '  trainlist01.txt: Jump/odd.avi 1',
    'listed twice (1):\n  trainlist01.txt: Jump/v_Jump_g08_c01.avi',
    f'missing file (1):\n  {videos / "Run" / "v_Run_g01_c01.avi"}',
    'group in more than one split (1):\n  Run, g01: test, train',
  ):
    assert problem in str(error.value)


def msrvtt(root):
  for i in range(4):
    save_clip(root / 'videos' / f'video{i}.npy')
  path = root / 'train_val_videodatainfo.json'
  content = {
    'info': {},
    'videos': [
      {'video_id': 'video0', 'split': 'train', 'id': 0},
      {'video_id': 'video1', 'split': 'validate', 'id': 1},
    ],
    'sentences': [
      {'video_id': 'video0', 'caption': 'a man\nsings', 'sen_id': 0},
      {'video_id': 'video1', 'caption': 'a dog runs', 'sen_id': 1},
      {'video_id': 'video0', 'caption': 'someone sings', 'sen_id': 2},
    ],
  }
  path.write_text(json.dumps(content))
  test = root / 'test_videodatainfo.json'
  content = {
    'videos': [{'video_id': 'video2', 'split': 'test'}],
    'sentences': [{'video_id': 'video2', 'caption': 'a cat'}],
  }
  test.write_text(json.dumps(content))
  return path, test


def test_msrvtt_has_all_of_its_captions(tmp_path):
  clips, report = clips_lib.captioned(tmp_path / 'videos', msrvtt(tmp_path))
  assert not report
  assert [(c.id, c.split, c.captions) for c in clips] == [
    ('video0', 'train', ('a man sings', 'someone sings')),
    ('video1', 'validation', ('a dog runs',)),
    ('video2', 'test', ('a cat',)),
  ]
  assert clips[0].frames == tmp_path / 'videos' / 'video0.npy'


def test_what_is_wrong_with_captions_is_said(tmp_path):
  path, test = msrvtt(tmp_path)
  content = json.loads(test.read_text())
  content['videos'] += [
    {'video_id': 'video0', 'split': 'test'},
    {'video_id': 'video3', 'split': 'holdout'},
    {'video_id': 'video4', 'split': 'test'},
    {'video_id': 'video5', 'split': 'test'},
    {'split': 'test'},
  ]
  content['sentences'] += [
    {'video_id': 'video3', 'caption': 'a cow'},
    {'video_id': 'video2', 'caption': ' . '},
    {'video_id': 'video5', 'caption': 'a goat'},
    {'video_id': 'video5', 'caption': 5},
  ]
  test.write_text(json.dumps(content))
  with pytest.raises(ValueError) as error:
    clips_lib.captioned(tmp_path / 'videos', [path, test])
  name = test.name
  for problem in (
    f'duplicate video (1):\n  {name}: video0',
    f"unknown split (1):\n  {name}: video3: 'holdout'",
    f"of another type (2):\n  {name}: videos[5]: 'video_id'\n  "
    f'{name}: sentences[4]: ',
    'captions, but in no split (1):\n  video3',
    'caption without a word (1):\n  video2',
    'video without captions (1):\n  video4',
    f'missing file (1):\n  {tmp_path / "videos" / "video5.mp4"}',
  ):
    assert problem in str(error.value)
  test.write_text('[]')
  with pytest.raises(ValueError, match='must hold an object'):
    clips_lib.captioned(tmp_path / 'videos', [test])
  test.write_text('{"videos": ')
  with pytest.raises(ValueError, match='is not JSON'):
    clips_lib.captioned(tmp_path / 'videos', [test])


def test_msvd_needs_lists_of_the_splits(tmp_path):
  for i in range(3):
    save_clip(tmp_path / 'videos' / f'x_{i}_9.npy')
  text = tmp_path / 'AllVideoDescriptions.txt'
  text.write_text(
    '# Descriptions\n\nx_0_9 a man sings\nx_1_9 a dog runs\n'
    'x_0_9 someone sings\nx_2_9 a cat\n'
  )
  mapping = tmp_path / 'captions.json'
  mapping.write_text(
    json.dumps(
      {
        'x_0_9': ['a man sings', 'someone sings'],
        'x_1_9': ['a dog runs'],
        'x_2_9': ['a cat'],
      }
    )
  )
  lists = tmp_path / 'lists'
  lists.mkdir()
  for i, word in enumerate(('train', 'val', 'test')):
    (lists / f'{word}_list.txt').write_text(f'x_{i}_9\n')
  args = tmp_path / 'videos', [text]
  clips, _ = clips_lib.captioned(*args, splits=lists)
  assert [(c.id, c.split, c.captions) for c in clips] == [
    ('x_0_9', 'train', ('a man sings', 'someone sings')),
    ('x_1_9', 'validation', ('a dog runs',)),
    ('x_2_9', 'test', ('a cat',)),
  ]
  assert clips_lib.captioned(args[0], [mapping], splits=lists)[0] == clips
  with pytest.raises(
    ValueError, match='not name the split of each video: pass'
  ):
    clips_lib.captioned(*args)
  (lists / 'val_list.txt').unlink()
  with pytest.raises(ValueError, match=r'one file \*val\*.txt, not 0'):
    clips_lib.captioned(*args, splits=lists)


def test_files_of_systems_are_ignored(tmp_path):
  save_clip(tmp_path / 'jump' / 'a.mp4')
  save_clip(tmp_path / 'run' / 'b')
  for name in ('jump/._a.mp4', 'run/b/._00.png', 'run/.DS_Store', 'Thumbs.db'):
    (tmp_path / name).write_bytes(b'\0\5\x16\7')
  (tmp_path / '__MACOSX' / 'jump').mkdir(parents=True)
  clips, report = clips_lib.classes(tmp_path)
  assert not report and [c.id for c in clips] == ['jump/a.mp4', 'run/b']


def test_lists_of_any_system_are_read(tmp_path):
  path, test = msrvtt(tmp_path)
  path.write_bytes(b'\xef\xbb\xbf' + path.read_bytes())
  expected, _ = clips_lib.captioned(tmp_path / 'videos', [path, test])
  for file in tmp_path.glob('videos/*'):
    (tmp_path / 'videos' / f'._{file.name}').write_bytes(b'\0\5\x16\7')
  clips, _ = clips_lib.captioned(tmp_path / 'videos', [path, test])
  assert clips == expected
  text = tmp_path / 'AllVideoDescriptions.txt'
  text.write_bytes('video0 a café\n'.encode('cp1252'))
  with pytest.raises(ValueError, match=f'{text}: line 1 is not UTF-8'):
    clips_lib.captioned(tmp_path / 'videos', [text])


@pytest.mark.parametrize(
  ('sentence', 'problem'),
  [
    ({'video_id': 'video0', 'caption': None}, 'caption is None, not text'),
    ({'video_id': ['x'], 'caption': 'a'}, 'video_id is ..x.., not text'),
    (None, 'None is no object'),
  ],
)
def test_problems_of_sentences_are_in_words(tmp_path, sentence, problem):
  path, test = msrvtt(tmp_path)
  content = json.loads(path.read_text())
  content['sentences'].append(sentence)
  path.write_text(json.dumps(content))
  with pytest.raises(ValueError, match=problem) as error:
    clips_lib.captioned(tmp_path / 'videos', [path, test])
  assert 'descriptor' not in str(error.value)


def test_no_video_outside_of_the_directory_is_opened(tmp_path):
  path, test = msrvtt(tmp_path)
  save_clip(tmp_path / 'secret.mp4')
  content = json.loads(test.read_text())
  content['videos'].append({'video_id': '../secret', 'split': 'test'})
  content['sentences'].append({'video_id': '../secret', 'caption': 'a dog'})
  test.write_text(json.dumps(content))
  with pytest.raises(ValueError, match='missing file'):
    clips_lib.captioned(tmp_path / 'videos', [path, test])


def test_two_files_of_a_video_are_a_problem(tmp_path):
  path, test = msrvtt(tmp_path)
  save_clip(tmp_path / 'videos' / 'video0.mp4')
  with pytest.raises(ValueError, match=r'video0\.mp4, video0\.npy'):
    clips_lib.captioned(tmp_path / 'videos', [path, test])


def test_a_size_that_changes_is_found_before_training(tmp_path):
  path = save_clip(tmp_path / 'jump' / 'a')
  Image.new('RGB', (9, 9)).save(path / '02.png')
  with pytest.raises(ValueError, match='differ in size'):
    clips_lib.classes(tmp_path)

// What a captioner said of a picture or a video: its best sentence, whose words
// show where or when it looked, and the alternatives.

import {fit} from './attention.js';
import {place} from './attention.js';
import {showWeights} from './attention.js';
import {showWhole} from './attention.js';
import {say} from './notices.js';
import {Words} from './words.js';

const EVERYTHING = {x: 0, y: 0, width: 1, height: 1};
const HINTS = {
  place: 'Point at a word, or go to it with Tab and the arrow keys, to see ' +
    'where the model looked when it said it: the brighter, the more weight.',
  time: 'Point at a word to see when the model looked; click it to go there.',
};

const room = document.getElementById('caption');
const canvas = room.querySelector('.photograph canvas');
const photograph = room.querySelector('.photograph img');
const clip = document.getElementById('clip');
const times = room.querySelector('.times');
const words = new Words(room.querySelector('.sentence'), point, press);
let answer = null;

export function showResult(found) {
  answer = found;
  room.querySelector('.found').hidden = !found;
  room.querySelector('.waiting').hidden = Boolean(found);
  const shades = found?.attention && !found.attention.times;
  const hint = document.getElementById('attention-hint');
  hint.textContent = !found?.attention ? '' : HINTS[shades ? 'place' : 'time'];
  hint.hidden = !hint.textContent;
  times.hidden = !found?.attention?.times;
  fit(canvas, photograph);
  if (!found) return;
  words.say(found.captions[0]?.words ?? [], Boolean(found.attention));
  point(null);
  const most = Math.max(...found.captions.map((it) => it.probability), 1e-30);
  room.querySelector('.alternatives').replaceChildren(
    ...found.captions.map(({text, probability}) => {
      const item = document.createElement('li');
      const sentence = document.createElement('span');
      sentence.textContent = text || 'no words';
      const bar = document.createElement('span');
      bar.className = 'bar';
      bar.style.inlineSize = `${100 * probability / most}%`;
      const number = document.createElement('span');
      number.className = 'number';
      number.textContent = percent(probability);
      item.append(sentence, number, bar);
      return item;
    }));
}

function percent(probability) {
  const percents = 100 * probability;
  if (percents < 0.01) return '< 0.01 %';
  return `${Number(percents.toPrecision(percents < 1 ? 1 : 2))} %`;
}

function point(i, who) {
  const {attention, shown = EVERYTHING} = answer;
  const weights = i === null ? null : attention?.weights[i];
  if (attention?.times) showTimes(attention, weights);
  else if (weights)
    showWeights(canvas, photograph, shown, attention, weights);
  else showWhole(canvas, shown);
  if (!weights || who !== 'keyboard') return;
  say('Most weight ' + (attention.times
    ? `at ${peak(attention, weights).toFixed(1)} seconds`
    : `in ${place(attention, weights)}`));
}

function peak(attention, weights) {
  return attention.times[weights.indexOf(Math.max(...weights))];
}

function showTimes(attention, weights) {
  const most = Math.max(...weights ?? [1]);
  times.replaceChildren(...attention.times.map((time, t) => {
    const bar = document.createElement('span');
    const share = weights ? weights[t] / most : 0;
    bar.style.blockSize = `${4 + 96 * share}%`;
    bar.title = `${time.toFixed(1)} s`;
    return bar;
  }));
}

function press(i) {
  if (!answer.attention?.times) return;
  clip.pause();
  clip.currentTime = peak(answer.attention, answer.attention.weights[i]);
}

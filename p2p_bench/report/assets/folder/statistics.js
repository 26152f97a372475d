// Paired statistics of two chosen runs: the same definitions as p2p_bench.stats.
const EXACT_GROUPS = 12, PATTERNS = 4000, RESAMPLES = 1000, ROUNDING = 1e-12;

// A small generator with a seed (mulberry32): the same page shows the same numbers.
function generator(seed) {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), a | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const sum = (values) => values.reduce((a, b) => a + b, 0);
const largestOf = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

// Differences of values up to `largest`: 0.3 - 0.2 and 0.2 - 0.1 are equal, 0.1 + 0.2 - 0.3 is none.
function withoutRounding(differences, largest) {
  const unit = ROUNDING * largest;
  return unit > 0 && unit < Infinity ? differences.map((value) => Math.round(value / unit) * unit) : differences;
}

function permutationP(differences) {
  const n = differences.length, exact = n <= EXACT_GROUPS, random = generator(0);
  const total = Math.abs(sum(differences)) - ROUNDING * sum(differences.map(Math.abs));
  const patterns = exact ? 2 ** n : PATTERNS;
  let extreme = 0;
  for (let k = 0; k < patterns; k++) {
    let signed = 0;
    for (let i = 0; i < n; i++) signed += (exact ? (k >> i) & 1 : random() < 0.5) ? -differences[i] : differences[i];
    if (Math.abs(signed) >= total) extreme += 1;
  }
  return exact ? extreme / patterns : (extreme + 1) / (patterns + 1);
}

// Abramowitz and Stegun 7.1.26 is too coarse for small p; this series and continued fraction are not.
function normalTail(z) {
  const x = Math.abs(z) / Math.SQRT2;
  if (x < 3) {
    let term = x, total = x;
    for (let k = 1; k < 200; k++) { term *= -x * x / k; total += term / (2 * k + 1); }
    return 1 - 2 / Math.sqrt(Math.PI) * total;
  }
  let fraction = 0;
  for (let k = 60; k > 0; k--) fraction = k / 2 / (x + fraction);
  return Math.exp(-x * x) / Math.sqrt(Math.PI) / (x + fraction);
}

// Share of the 2^n sign patterns of these ranks whose positive ones sum to at most, and at least, `plus`; the smaller.
function rankTail(ranks, plus) {
  const patterns = 2 ** ranks.length;
  let below = 0, above = 0;
  for (let k = 0; k < patterns; k++) {
    const total = sum(ranks.filter((_, i) => (k >> i) & 1));
    below += total <= plus;
    above += total >= plus;
  }
  return Math.min(below, above) / patterns;
}

// Two-sided p of Wilcoxon's signed-rank test: exact up to 50, or to 13 with ties or zeros; else normal.
function wilcoxonP(differences) {
  const kept = differences.filter((value) => value !== 0), n = kept.length;
  if (!n) return 1;
  const order = kept.map((value) => [Math.abs(value), value > 0]).sort((p, q) => p[0] - q[0]);
  const ranks = [];
  let plus = 0, ties = 0;
  for (let i = 0; i < n;) {
    let j = i;
    while (j < n && order[j][0] === order[i][0]) j++;
    const rank = (i + j + 1) / 2, size = j - i;
    ties += size ** 3 - size;
    for (let k = i; k < j; k++) { ranks.push(rank); if (order[k][1]) plus += rank; }
    i = j;
  }
  const least = Math.min(plus, n * (n + 1) / 2 - plus);
  if (!ties && n === differences.length && n <= 50) {
    const ways = new Array(n * (n + 1) / 2 + 1).fill(0);
    ways[0] = 1;
    for (let rank = 1; rank <= n; rank++) for (let t = ways.length - 1; t >= rank; t--) ways[t] += ways[t - rank];
    return Math.min(1, 2 * sum(ways.slice(0, Math.floor(least) + 1)) / 2 ** n);
  }
  if (differences.length <= 13) return Math.min(1, 2 * rankTail(ranks, plus));
  const spread = Math.sqrt(n * (n + 1) * (2 * n + 1) / 24 - ties / 48);
  return Math.min(1, normalTail((least - n * (n + 1) / 4) / spread));
}

// P values corrected for their number (Holm 1979), in the given order; null stays and does not count.
function holm(values) {
  const order = values.map((p, i) => [p, i]).filter(([p]) => p != null).sort((p, q) => p[0] - q[0]);
  const corrected = values.map(() => null);
  let largest = 0;
  order.forEach(([p, i], rank) => { largest = Math.max(largest, Math.min(1, (order.length - rank) * p)); corrected[i] = largest; });
  return corrected;
}

// Pairs [value of A, value of B, group] to the comparison; differences are A minus B.
function comparePaired(pairs) {
  if (!pairs.length) return null;
  const groups = new Map();
  for (const [a, b, group] of pairs) {
    const held = groups.get(group) || [0, 0];
    groups.set(group, [held[0] + a - b, held[1] + 1]);
  }
  const held = [...groups.values()], n = held.length;
  const means = withoutRounding(held.map(([total, count]) => total / count), largestOf(pairs.flatMap(([a, b]) => [a, b])));
  const center = sum(means) / n;
  const spread = n > 1 ? Math.sqrt(sum(means.map((value) => (value - center) ** 2)) / (n - 1)) : 0;
  let low = null, high = null;
  if (n > 1) {
    const random = generator(1), drawn = [];
    for (let k = 0; k < RESAMPLES; k++) {
      let total = 0, count = 0;
      for (let i = 0; i < n; i++) { const one = held[Math.floor(random() * n)]; total += one[0]; count += one[1]; }
      drawn.push(total / count);
    }
    drawn.sort((p, q) => p - q);
    const at = (share) => { const place = share * (RESAMPLES - 1), floor = Math.floor(place); return drawn[floor] + (place - floor) * ((drawn[floor + 1] ?? drawn[floor]) - drawn[floor]); };
    [low, high] = [at(0.025), at(0.975)];
  }
  const mean = (k) => sum(pairs.map((pair) => pair[k])) / pairs.length;
  return { a: mean(0), b: mean(1), difference: mean(0) - mean(1), low, high, pairs: pairs.length, groups: n,
    effect: spread > ROUNDING * largestOf(means) ? center / spread : null, p: permutationP(means), wilcoxon: wilcoxonP(means) };
}

const formatP = (p) => (p == null ? "–" : p < 0.001 ? "< 0.001" : p.toFixed(3));

// Up to eight classes of a column, to colour a map by; as the server makes them.

const COLOURS = 8;

/** {names, of}: the names of the classes, and the class of each value. */
export const classes = (values, numbers) => (numbers ? ranges(values) : named(values));

/** The most frequent values, and the others as one class. */
function named(values) {
  const texts = values.map((value) => (value === null ? "" : String(value))), counts = new Map();
  for (const text of texts) counts.set(text, (counts.get(text) ?? 0) + 1);
  const order = [...counts].sort(([a, n], [b, m]) => m - n || (a < b ? 1 : -1)).map(([text]) => text);
  const most = order.length <= COLOURS ? COLOURS : COLOURS - 1;
  const kept = new Map(order.slice(0, most).map((text, i) => [text, i]));
  const names = [...kept.keys()].map((text) => text || "(empty)");
  if (order.length > most) names.push("other");
  return { names, of: texts.map((text) => kept.get(text) ?? most) };
}

/** Classes of as many items each, named by their ends. */
function ranges(values) {
  const there = Float64Array.from(values.filter((value) => value !== null)).sort();
  if (!there.length) return { names: ["(empty)"], of: values.map(() => 0) };
  const quantile = (share) => {
    const at = share * (there.length - 1), low = Math.floor(at);
    return there[low] + (at - low) * ((there[low + 1] ?? there[low]) - there[low]);
  };
  const edges = [...new Set(Array.from({ length: COLOURS - 2 }, (_, i) => quantile((i + 1) / (COLOURS - 1))))];
  const ends = [there[0], ...edges, there.at(-1)], short = (value) => String(Number(value.toPrecision(6)));
  const names = edges.concat(0).map((_, i) => `${short(ends[i])}–${short(ends[i + 1])}`);
  const of = values.map((value) => (value === null ? names.length : edges.filter((edge) => edge <= value).length));
  if (there.length < values.length) names.push("(empty)");
  return { names, of };
}

// Conditions on columns, `year > 2020 and kind = 'map'`: the language of an index, with SQL's meaning.

import { Failure } from "./failure.js";

const TOKEN = new RegExp([
  String.raw`\s*(?:(?<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\p{L}\p{N}_.]))`,
  String.raw`(?<text>'(?:[^']|'')*')`, String.raw`(?<quoted>"(?:[^"]|"")+")`,
  String.raw`(?<word>[\p{L}_][\p{L}\p{M}\p{N}_]*)`, String.raw`(?<sign><=|>=|<>|!=|==|=|<|>|\(|\)|,))`,
].join("|"), "uy");
const WORDS = ["and", "or", "not", "in", "like", "between", "is", "null"];
const SIGNS = { "==": "=", "<>": "!=" };
const DEEPEST = 50;
const EXAMPLE = "Example: year > 2020 and kind in ('map', 'chart')";

// Each answer is true, false, or null where a value is missing.
const not = (a) => (a === null ? null : !a);
const and = (found) => (found.includes(false) ? false : found.includes(null) ? null : true);
const or = (found) => not(and(found.map(not)));

/** By code points, as SQL compares the bytes of texts; numbers as numbers. */
function order(a, b) {
  if (typeof a === "number") return a - b;
  const [left, right] = [[...a], [...b]], at = left.findIndex((one, i) => one !== right[i]);
  if (at < 0) return left.length - right.length;
  return at < right.length ? left[at].codePointAt() - right[at].codePointAt() : 1;
}

const COMPARES = {
  "=": (n) => n === 0, "!=": (n) => n !== 0, "<": (n) => n < 0, "<=": (n) => n <= 0, ">": (n) => n > 0, ">=": (n) => n >= 0,
};
const compared = (sign, a, b) => (a === null ? null : COMPARES[sign](order(a, b)));

const lower = (text) => text.replaceAll(/[A-Z]/g, (letter) => letter.toLowerCase());

/** SQL's `like`: % is anything, _ one character; a to z are the same as A to Z. */
function likeness(pattern) {
  const parts = [...lower(pattern)].map((one) => ({ "%": ".*", _: "." })[one] ?? one.replace(/[$()*+./?[\\\]^{|}]/u, "\\$&"));
  const whole = new RegExp(`^${parts.join("")}$`, "su");
  return (value) => (value === null ? null : whole.test(lower(value)));
}

/** A function of (name → value), true if an item passes. `kinds`: column → "number" | "text". */
export function condition(text, kinds) {
  const test = new Parser(text, kinds).parse();
  return (value) => test(value) === true;
}

class Parser {
  constructor(text, kinds) {
    Object.assign(this, { text, kinds, at: 0, tokens: [] });
    const end = text.trimEnd().length;
    for (let from = 0; from < end; from = TOKEN.lastIndex) {
      TOKEN.lastIndex = from;
      const found = TOKEN.exec(text);
      if (!found) this.#fail("This can't be read", from + text.slice(from).search(/\S/));
      const [kind, value] = Object.entries(found.groups).find(([, one]) => one !== undefined);
      this.tokens.push({ kind, value, from: TOKEN.lastIndex - value.length });
    }
    this.tokens.push({ kind: "end", value: "", from: end });
  }

  parse() {
    const test = this.#any(0);
    if (this.#next.kind !== "end") this.#fail("Expected 'and' or 'or'");
    return test;
  }

  #any(depth) {
    const tests = [this.#all(depth)];
    while (this.#takes("or")) tests.push(this.#all(depth));
    return (value) => or(tests.map((test) => test(value)));
  }

  #all(depth) {
    const tests = [this.#one(depth)];
    while (this.#takes("and")) tests.push(this.#one(depth));
    return (value) => and(tests.map((test) => test(value)));
  }

  #one(depth) {
    if (depth > DEEPEST) this.#fail("This is nested too deeply");
    if (this.#takes("not")) {
      const test = this.#one(depth + 1);
      return (value) => not(test(value));
    }
    if (this.#takes("(")) {
      const test = this.#any(depth + 1);
      this.#needs(")");
      return test;
    }
    return this.#test(this.#column());
  }

  #test(name) {
    const token = this.#next, sign = SIGNS[token.value] ?? token.value, kind = this.kinds.get(name);
    if (token.kind === "sign" && Object.hasOwn(COMPARES, sign)) {
      this.at++;
      const other = this.#value(kind, sign === "=" || sign === "!=");
      return (value) => compared(sign, value(name), other);
    }
    if (this.#takes("is")) {
      const negated = this.#takes("not");
      this.#needs("null");
      return (value) => (value(name) === null) !== negated;
    }
    const turned = this.#takes("not") ? not : (answer) => answer;
    if (this.#takes("in")) {
      this.#needs("(");
      const others = [this.#value(kind)];
      while (this.#takes(",")) others.push(this.#value(kind));
      this.#needs(")");
      return (value) => turned(or(others.map((other) => compared("=", value(name), other))));
    }
    if (this.#takes("like")) {
      if (kind !== "text") this.#fail("Only texts can be compared by 'like'");
      const like = likeness(this.#value(kind));
      return (value) => turned(like(value(name)));
    }
    if (this.#takes("between")) {
      const low = this.#value(kind, false);
      this.#needs("and");
      const high = this.#value(kind, false);
      return (value) => turned(and([compared(">=", value(name), low), compared("<=", value(name), high)]));
    }
    return this.#fail("Expected a comparison such as =, <, in, like, between or is null");
  }

  #column() {
    const token = this.#next, plain = token.kind === "word" && !this.#isKeyword(token);
    if (!plain && token.kind !== "quoted") this.#fail("Expected the name of a column");
    const name = plain ? token.value : token.value.slice(1, -1).replaceAll('""', '"');
    if (!this.kinds.has(name)) throw new Failure(`There is no column '${name}'.`, `Columns: ${[...this.kinds.keys()].join(", ")}.`);
    this.at++;
    return name;
  }

  /** A value that fits a column. `equal`: it need only be the same or not. */
  #value(kind, equal = true) {
    const token = this.#next, found = token.value;
    if (token.kind === "text" && kind === "number") this.#fail("This column has numbers: write the value without quotes");
    if (token.kind === "number" && kind === "text" && !equal) this.#fail("This column has texts: write the value in single quotes");
    if (token.kind !== "text" && token.kind !== "number") this.#fail("Expected a number, or a text in single quotes");
    this.at++;
    if (token.kind === "text") return found.slice(1, -1).replaceAll("''", "'");
    return kind === "text" ? found : Number(found);
  }

  get #next() {
    return this.tokens[this.at];
  }

  #isKeyword(token) {
    return token.kind === "word" && WORDS.includes(token.value.toLowerCase());
  }

  /** Whether the next token is this sign or keyword; then it is taken. */
  #takes(word) {
    const token = this.#next;
    const hit = (token.kind === "sign" && token.value === word) || (this.#isKeyword(token) && token.value.toLowerCase() === word);
    if (hit) this.at++;
    return hit;
  }

  #needs(word) {
    if (!this.#takes(word)) this.#fail(`Expected '${word}'`);
  }

  #fail(why, at = this.#next.from) {
    const before = this.text.slice(Math.max(0, at - 40), at), after = this.text.slice(at, at + 40);
    throw new Failure(`The condition can't be read at: ${before}>>${after || " (the end)"}`, `${why}. ${EXAMPLE}`);
  }
}

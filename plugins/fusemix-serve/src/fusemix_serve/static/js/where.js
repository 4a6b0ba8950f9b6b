// Filters as one expression in the index's small language.

const text = (value) => `'${String(value).replaceAll("'", "''")}'`;
const WORDS = new Set(["and", "or", "not", "in", "like", "between", "is", "null"]);

function column(name) {
  const plain = /^[A-Za-z_][A-Za-z0-9_]*$/.test(name) && !WORDS.has(name.toLowerCase());
  return plain ? name : `"${name.replaceAll('"', '""')}"`;
}

function condition(name, facet, kind) {
  const parts = [];
  if (facet.values?.length) {
    const values = facet.values.map((value) => (kind === "text" ? text(value) : value));
    parts.push(values.length === 1 ? `${column(name)} = ${values[0]}` : `${column(name)} in (${values.join(", ")})`);
  }
  if (facet.from !== undefined) parts.push(`${column(name)} >= ${facet.from}`);
  if (facet.to !== undefined) parts.push(`${column(name)} <= ${facet.to}`);
  return parts;
}

/** The conditions of a state, but for those of the column `except`: "" if there are none. */
export function expression(state, columns, except = null) {
  const kinds = new Map(columns.map((one) => [one.name, one.kind]));
  const parts = Object.entries(state.facets)
    .filter(([name]) => name !== except && kinds.has(name))
    .flatMap(([name, facet]) => condition(name, facet, kinds.get(name)));
  if (state.where.trim()) parts.push(parts.length ? `(${state.where})` : state.where);
  return parts.join(" and ");
}

/** Whether anything is filtered. */
export const filtered = (state) => Boolean(state.where.trim() || state.within
  || Object.values(state.facets).some((f) => f.values?.length || f.from !== undefined || f.to !== undefined));

/** Whether a point is inside a polygon [[x, y], …], by the even-odd rule. */
export function inside(x, y, corners) {
  let found = false;
  corners.forEach(([x1, y1], i) => {
    const [x2, y2] = corners[(i + 1) % corners.length];
    if ((y1 > y) !== (y2 > y) && x < (x2 - x1) * (y - y1) / (y2 - y1) + x1) found = !found;
  });
  return found;
}

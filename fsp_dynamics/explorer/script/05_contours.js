/* Contours on a grid of values: zero lines (nullclines) and the filled part where a field is at most one (the region of stability). */

/*
 * The four corners of a cell are (row, column), (row, column + 1), (row + 1, column + 1), (row + 1, column); side k leads from corner k to k + 1.
 * A cell with an undefined corner is left out.
 */

/**
 * Path of the line where `values` (rows x columns, row by row, less `level`) changes sign, linear between the grid's points.
 * `x(j)` and `y(i)` give the pixels of column j and row i.
 */
function zeroLine(values, rows, columns, x, y, level = 0) {
    const path = new Path2D();
    const corner = [0, 0, 0, 0];
    const px = [0, 0, 0, 0];
    const py = [0, 0, 0, 0];
    for (let i = 0; i + 1 < rows; i += 1) {
        for (let j = 0; j + 1 < columns; j += 1) {
            corner[0] = values[i * columns + j] - level;
            corner[1] = values[i * columns + j + 1] - level;
            corner[2] = values[(i + 1) * columns + j + 1] - level;
            corner[3] = values[(i + 1) * columns + j] - level;
            px[0] = px[3] = x(j);
            px[1] = px[2] = x(j + 1);
            py[0] = py[1] = y(i);
            py[2] = py[3] = y(i + 1);
            crossings(path, corner, px, py);
        }
    }
    return path;
}

/** Adds the pieces of the zero line in one cell: from each side it enters by to the next it leaves by. */
function crossings(path, corner, px, py) {
    let open = false;
    for (let k = 0; k < 4; k += 1) {
        const next = (k + 1) & 3;
        const a = corner[k];
        const b = corner[next];
        if (Number.isNaN(a + b)) {
            return;
        }
        if (a < 0 !== b < 0) {
            const share = a / (a - b);
            const x = px[k] + (px[next] - px[k]) * share;
            const y = py[k] + (py[next] - py[k]) * share;
            if (open) {
                path.lineTo(x, y);
            } else {
                path.moveTo(x, y);
            }
            open = !open;
        }
    }
}

/** Path of the part of the grid where `values` <= `level`, cut linearly at the cells' sides; whole runs of a row become one rectangle. */
function filledBelow(values, rows, columns, x, y, level) {
    const path = new Path2D();
    const inside = (i, j) => values[i * columns + j] <= level;
    for (let i = 0; i + 1 < rows; i += 1) {
        let start = -1;
        for (let j = 0; j < columns; j += 1) {
            const whole = j + 1 < columns && inside(i, j) && inside(i, j + 1) && inside(i + 1, j) && inside(i + 1, j + 1);
            if (whole && start < 0) {
                start = j;
            } else if (!whole && start >= 0) {
                path.rect(x(start), y(i + 1), x(j) - x(start), y(i) - y(i + 1));
                start = -1;
            }
            if (!whole && j + 1 < columns) {
                cutCell(path, values, columns, i, j, x, y, level);
            }
        }
    }
    return path;
}

/** Adds the polygon of one cell where the values, linear along its sides, are at most `level`. */
function cutCell(path, values, columns, i, j, x, y, level) {
    const corners = [[i + 1, j], [i + 1, j + 1], [i, j + 1], [i, j]];
    let begun = false;
    const point = (px, py) => {
        if (begun) {
            path.lineTo(px, py);
        } else {
            path.moveTo(px, py);
            begun = true;
        }
    };
    for (let k = 0; k < 4; k += 1) {
        const [i0, j0] = corners[k];
        const [i1, j1] = corners[(k + 1) & 3];
        const a = values[i0 * columns + j0] - level;
        const b = values[i1 * columns + j1] - level;
        if (a <= 0) {
            point(x(j0), y(i0));
        }
        if ((a <= 0) !== (b <= 0) && Number.isFinite(a) && Number.isFinite(b)) {
            const share = a / (a - b);
            point(x(j0) + (x(j1) - x(j0)) * share, y(i0) + (y(i1) - y(i0)) * share);
        }
    }
    if (begun) {
        path.closePath();
    }
}

/* Exchange with Python: frames unpacked, one request in flight, only the newest parameters kept. */

const LOST_AFTER = 60000; // milliseconds without a reply after which a request no longer blocks the next one

/** The arrays of a message: { name: { data, shape } }, without copying where the buffer is aligned to four bytes. */
function unpack(layout, buffer) {
    let bytes = buffer;
    if (!(buffer instanceof DataView)) {
        bytes = ArrayBuffer.isView(buffer) ? new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength) : new DataView(buffer);
    }
    const count = Math.floor(bytes.byteLength / 4);
    const all = bytes.byteOffset % 4 === 0
        ? new Float32Array(bytes.buffer, bytes.byteOffset, count)
        : new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + 4 * count));
    const arrays = {};
    for (const [name, shape, offset] of layout) {
        const size = shape.reduce((product, n) => product * n, 1);
        arrays[name] = { data: all.subarray(offset, offset + size), shape };
    }
    return arrays;
}

/**
 * One frame: its arrays by name, its readouts, and what every view needs: T, M, how many outputs, the last free row (`free`), and
 * whether a `second`, nudged phase follows.
 */
function readFrame(content, buffer) {
    const arrays = unpack(content.layout, buffer);
    const times = arrays.times.data;
    const phase = arrays.phase.data;
    let free = -1;
    while (free + 1 < times.length && phase[free + 1] < 0.5) {
        free += 1;
    }
    return {
        id: content.id,
        readouts: content.readouts,
        arrays,
        times,
        free: Math.max(free, 0),
        second: free < times.length - 1,
        T: times.length,
        M: arrays.rates.shape[1],
        outputs: arrays.output.shape[1],
    };
}

/**
 * The queue to Python. At most one request is open. Actions (learn, forget, next, netcdf) come first, one by one; then a frame,
 * sent with the parameters at that time; then a piece of the sweep, requested through `nextPiece`.
 */
class Requests {
    constructor(send, parameters, nextPiece) {
        this.send = send;
        this.parameters = parameters;
        this.nextPiece = nextPiece;
        this.acts = [];
        this.wanted = null; // time of the newest input without a frame
        this.open = null;
        this.last = 0;
    }

    /** Wish for a frame; `time` is that of the input behind it (performance.now). */
    frame(time) {
        this.wanted = time;
        this.pump();
    }

    /** Wish for a learn, forget, next or netcdf. */
    act(kind) {
        this.acts.push(kind);
        this.pump();
    }

    /** Takes the open request that `id` answers, or null where it answers another view of the same widget. */
    take(id) {
        if (this.open === null || this.open.id !== id) {
            return null;
        }
        const answered = this.open;
        this.open = null;
        return answered;
    }

    /** Sends the next request unless one is open. */
    pump() {
        if (this.open !== null && performance.now() - this.open.at < LOST_AFTER) {
            return;
        }
        this.open = null;
        const content = this.next();
        if (content === null) {
            return;
        }
        const time = this.wanted;
        if (content.kind !== "sweep" && content.kind !== "netcdf") {
            this.wanted = null; // the reply to all others is a frame of these parameters
        }
        content.id = this.newId();
        content.parameters = { ...this.parameters() };
        this.open = { id: content.id, content, at: performance.now(), time: time ?? performance.now() };
        this.send(content);
    }

    /** What to ask for next, or null. */
    next() {
        if (this.acts.length > 0) {
            return { kind: this.acts.shift() };
        }
        if (this.wanted !== null) {
            return { kind: "frame" };
        }
        const piece = this.nextPiece();
        return piece === null ? null : { kind: "sweep", ...piece };
    }

    /** A growing number that other views of the same widget will not use: microseconds, the last three digits by chance. */
    newId() {
        this.last = Math.max(this.last + 1, Date.now() * 1000 + Math.floor(Math.random() * 1000));
        return this.last;
    }
}

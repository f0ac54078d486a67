/* Taking things away: all views in one picture, files, the clipboard. */

/** Offers `parts` (of a Blob) as a file to save. */
function saveFile(name, type, parts) {
    const address = URL.createObjectURL(new Blob(parts, { type }));
    const link = make("a", { href: address, download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
}

/** Copies `text`; resolves to whether that was possible. */
async function copyText(text, beside) {
    try {
        await navigator.clipboard.writeText(text);
        return true;
    } catch {
        // Without the permission or a secure page: the old way, through a selected field.
        const field = make("textarea", { class: "fsp-hidden", "aria-hidden": "true" });
        field.value = text;
        beside.append(field);
        field.select();
        const done = document.execCommand("copy");
        field.remove();
        return done;
    }
}

/** `text` cut into lines of at most `width` pixels in the present font. */
function wrapped(c, text, width) {
    const lines = [""];
    for (const word of text.split(/\s+/)) {
        const longer = lines.at(-1) === "" ? word : `${lines.at(-1)} ${word}`;
        if (c.measureText(longer).width > width && lines.at(-1) !== "") {
            lines.push(word);
        } else {
            lines[lines.length - 1] = longer;
        }
    }
    return lines;
}

/**
 * All cards in one canvas: the title and the text above, then the `parts` one below the other, each { cards, area } with the cards as they lie in
 * their area. `ratio` pixels per CSS pixel, at which the cards' canvases have been drawn.
 */
function compose(parts, { title, text, theme, ratio }) {
    const frames = parts.map(({ area }) => area.getBoundingClientRect());
    const frame = { width: frames[0].width, height: frames.reduce((sum, { height }) => sum + height + 10, -10) };
    const margin = 16;
    const canvas = document.createElement("canvas");
    const c = canvas.getContext("2d");
    const textFont = `400 13px ${theme.font}`;
    c.font = textFont;
    const lines = wrapped(c, text, frame.width);
    const head = 34 + lines.length * 18 + 8;
    canvas.width = Math.round((frame.width + 2 * margin) * ratio);
    canvas.height = Math.round((frame.height + head + 2 * margin) * ratio);
    c.scale(ratio, ratio);
    c.fillStyle = theme.page;
    c.fillRect(0, 0, canvas.width, canvas.height);
    c.textBaseline = "top";
    c.fillStyle = theme.ink;
    c.font = `600 15px ${theme.font}`;
    c.fillText(title, margin, margin);
    c.font = textFont;
    lines.forEach((line, n) => c.fillText(line, margin, margin + 26 + n * 18));
    let top = head;
    parts.forEach(({ cards }, n) => {
        cards.forEach((card) => composeCard(c, card, frames[n], margin, top, theme));
        top += frames[n].height + 10;
    });
    return canvas;
}

/** One card of the picture: its border, title, caption and both canvases. */
function composeCard(c, card, frame, margin, head, theme) {
    const box = card.element.getBoundingClientRect();
    if (box.width === 0) {
        return;
    }
    const x = margin + box.left - frame.left;
    const y = margin + head + box.top - frame.top;
    c.strokeStyle = theme.faint;
    c.lineWidth = 1;
    c.strokeRect(x + 0.5, y + 0.5, box.width - 1, box.height - 1);
    c.textBaseline = "top";
    c.textAlign = "left";
    c.fillStyle = theme.ink;
    c.font = `600 12px ${theme.font}`;
    c.fillText(card.title.textContent, x + 12, y + 9);
    const used = c.measureText(card.title.textContent).width;
    c.font = `400 11px ${theme.font}`;
    c.textAlign = "right";
    c.fillStyle = theme.muted;
    c.fillText(shortened({ c }, card.caption.textContent, box.width - used - 36), x + box.width - 12, y + 10);
    c.textAlign = "left";
    const inner = card.holder.getBoundingClientRect();
    for (const canvas of [card.base, card.over]) {
        if (canvas.width > 0 && canvas.height > 0) {
            c.drawImage(canvas, x + inner.left - box.left, y + inner.top - box.top, inner.width, inner.height);
        }
    }
}

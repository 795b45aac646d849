(() => {
  "use strict";
  // Tables: sort by a heading, filter by words.
  for (const table of document.querySelectorAll("table")) {
    const body = table.tBodies[0];
    if (body.rows.length < 3) continue;
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      const button = document.createElement("button");
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        const down = heading.getAttribute("aria-sort") === "ascending";
        headings.forEach((other) => other.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", down ? "descending" : "ascending");
        const value = (row) => {
          const text = row.cells[column].dataset.sort ?? row.cells[column].textContent;
          const number = Number(text.replaceAll(",", ""));
          return text === "" || Number.isNaN(number) ? text : number;
        };
        const compare = (a, b) => {
          const x = value(a), y = value(b);
          if (typeof x === "number" && typeof y === "number") return (x > y) - (x < y);
          if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
          return x.localeCompare(y, "en", { numeric: true });
        };
        body.append(...[...body.rows].sort((a, b) => (down ? compare(b, a) : compare(a, b))));
      });
    });
    if (body.rows.length < 12) continue;
    const label = document.createElement("label");
    label.className = "filter";
    label.textContent = "Filter rows";
    const input = document.createElement("input");
    input.type = "search";
    input.placeholder = "words, such as: mamba forward";
    label.append(input);
    table.parentElement.before(label);
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of body.rows) {
        const text = [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
      }
    });
  }
  // Points of a figure and cells of a table say more on hover and on focus.
  const tip = document.getElementById("tip");
  const show = (event) => {
    const target = event.target.closest("[data-tip], .point");
    if (!target) return;
    tip.textContent = target.dataset.tip ?? target.getAttribute("aria-label");
    tip.hidden = false;
    if (target.dataset.tip) target.setAttribute("aria-describedby", "tip");
    const box = target.getBoundingClientRect();
    const left = Math.min(box.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(8, left) + scrollX}px`;
    const above = box.top - tip.offsetHeight - 8;
    tip.style.top = `${(above > 0 ? above : box.bottom + 8) + scrollY}px`;
  };
  const hide = () => { tip.hidden = true; };
  document.addEventListener("mouseover", show);
  document.addEventListener("focusin", show);
  document.addEventListener("mouseout", hide);
  document.addEventListener("focusout", hide);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  // One tab stop a figure, a row of headings and a table; arrow keys go on from there.
  const rove = (parent, selector) => {
    const found = () => [...parent.querySelectorAll(selector)].filter((each) => each.getClientRects().length);
    const stop = (item) => {
      for (const each of parent.querySelectorAll(selector)) each.setAttribute("tabindex", each === item ? 0 : -1);
    };
    stop(parent.querySelector(selector));
    parent.addEventListener("focusin", (event) => {
      if (event.target.matches(selector)) stop(event.target);
    });
    parent.addEventListener("keydown", (event) => {
      if (!event.target.matches(selector)) return;
      const items = found(), at = items.indexOf(event.target);
      const column = (item) => item.cellIndex;
      const below = (some) => some.find((item) => column(item) === column(event.target));
      const to = {
        ArrowRight: items[at + 1], ArrowLeft: items[at - 1], Home: items[0], End: items.at(-1),
        ArrowDown: below(items.slice(at + 1)), ArrowUp: below(items.slice(0, at).reverse()),
      }[event.key];
      if (!to) return;
      event.preventDefault();
      to.focus();
    });
  };
  for (const picture of document.querySelectorAll("svg")) rove(picture, ".point");
  for (const table of document.querySelectorAll("table")) {
    rove(table.tHead, "button");
    rove(table.tBodies[0], "[data-tip]");
  }
  // A region is worth a stop only where it can be scrolled.
  const regions = document.querySelectorAll(".scroll");
  const narrow = matchMedia("(max-width: 40rem)");
  const wide = (region) => region.scrollWidth > region.clientWidth;
  const measure = () => {
    for (const region of regions) {
      // A table that does not fit may break its lines; on a narrow screen a row then becomes lines.
      const table = region.querySelector("table");
      table.classList.remove("rows", "tight");
      table.classList.toggle("tight", wide(region));
      if (narrow.matches && wide(region)) {
        const names = [...table.tHead.rows[0].cells].map((heading) => heading.textContent);
        for (const row of table.tBodies[0].rows) {
          for (const cell of row.cells) cell.dataset.label = names[cell.cellIndex];
        }
        table.classList.add("rows");
      }
      region.tabIndex = wide(region) ? 0 : -1;
    }
  };
  measure();
  addEventListener("resize", measure);
  document.addEventListener("toggle", measure, true);
  // Paper cannot be unfolded.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const each of opened) each.open = true;
  });
  addEventListener("afterprint", () => { for (const each of opened) each.open = false; });
})();

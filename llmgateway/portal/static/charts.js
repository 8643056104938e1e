// Draws charts with Chart.js, in the colours and letters of the style sheet. What is drawn stands in `data-chart`, and in
// the table that follows, which is there for who sees no picture.
"use strict";

const language = document.documentElement.lang, whole = new Intl.NumberFormat(language);
const MANY = 1_000_000; // beside the lines there is no room for all digits of such
const LONG = 32; // a longer name would push its number out of the picture
const schemes = matchMedia("(prefers-color-scheme: dark)");

const cut = (name) => name.length > LONG ? `${name.slice(0, LONG - 1)}…` : name;

function options(plot, totals) {
  const styles = getComputedStyle(plot), of = (name) => styles.getPropertyValue(name);
  const short = { notation: "compact", minimumFractionDigits: 0, maximumFractionDigits: 1 };
  const format = Math.max(...totals) < MANY ? {} : short;
  return {
    animation: false, // also in pictures of pages, which are taken as soon as they are loaded
    maintainAspectRatio: false,
    locale: language,
    interaction: { mode: "index", intersect: false },
    datasets: { bar: {
      categoryPercentage: 0.8, barPercentage: 1,
      borderColor: of("--surface"), borderWidth: { top: 1 }, borderSkipped: false,
    } },
    scales: {
      x: {
        stacked: true, grid: { display: false }, border: { display: false },
        ticks: { color: of("--soft"), maxRotation: 0, autoSkipPadding: 24 },
      },
      y: {
        stacked: true, grid: { color: of("--line"), drawTicks: false }, border: { display: false },
        ticks: { color: of("--soft"), precision: 0, maxTicksLimit: 6, padding: 8, format },
      },
    },
    plugins: {
      legend: { display: false }, // the page's own is text
      tooltip: {
        backgroundColor: of("--surface"), borderColor: of("--edge"), borderWidth: 1, padding: 10, boxPadding: 4,
        titleColor: of("--ink"), bodyColor: of("--ink"), footerColor: of("--ink"), multiKeyBackground: of("--surface"),
        filter: (item) => item.raw > 0,
        callbacks: {
          label: (item) => `${cut(item.dataset.label)}: ${whole.format(item.raw)}`,
          footer: (items) => items.length > 1 ? `${plot.dataset.all}: ${whole.format(totals[items[0].dataIndex])}` : "",
        },
      },
    },
  };
}

function drawn(plot, canvas) {
  const { days, names, values } = JSON.parse(plot.dataset.chart);
  const totals = days.map((_, place) => values.reduce((sum, one) => sum + one[place], 0));
  const styles = getComputedStyle(plot);
  const datasets = names.map((label, n) => {
    const colour = styles.getPropertyValue(`--c${n}`);
    const pointed = `color-mix(in srgb, ${colour} 75%, transparent)`;
    return { label, data: values[n], backgroundColor: colour, hoverBackgroundColor: pointed };
  });
  // What a chart's own options say of letters does not reach those of its axes.
  Object.assign(Chart.defaults.font, { family: styles.fontFamily, size: parseFloat(styles.fontSize) });
  return new Chart(canvas, { type: "bar", data: { labels: days, datasets }, options: options(plot, totals) });
}

for (const plot of document.querySelectorAll("[data-chart]")) {
  if (!window.Chart) { // the library did not come: the table is what there is
    plot.closest("figure").hidden = true;
    plot.closest("section").querySelector(".as-table").open = true;
    continue;
  }
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", plot.dataset.title);
  plot.append(canvas);
  let chart = drawn(plot, canvas);
  schemes.addEventListener("change", () => {
    chart.destroy();
    chart = drawn(plot, canvas);
  });
}

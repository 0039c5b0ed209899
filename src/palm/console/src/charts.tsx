import { useEffect, useRef } from "preact/hooks";
import UPlot from "uplot";

import type { Sample } from "./api";
import { bytes } from "./format";
import { RECOLOURED } from "./theme";
import { Card } from "./ui";

const HEIGHT = 150;

interface Series {
  label: string;
  colour: string;
  of: (now: Sample, before: Sample, seconds: number) => number;
}

interface Plot {
  title: string;
  write: (value: number) => string;
  /** What the axis reaches at least, so that nothing does not look like much. */
  least: number;
  steps?: number[];
  series: Series[];
}

const rate = (value: number) => (value === 0 || value >= 10 ? value.toFixed(0) : value.toFixed(1));
/** Steps of the axis of time, in seconds: its labels tell no less than a minute. */
const MINUTES = [1, 2, 5, 10, 30].map((minutes) => minutes * 60);
/** Steps of an axis of bytes. */
const POWERS = Array.from({ length: 50 }, (_, power) => 2 ** power);
const PLOTS: Plot[] = [
  {
    title: "Requests per second",
    write: rate,
    least: 1,
    series: [
      { label: "all", colour: "--accent", of: (now, before, seconds) => (now.requests - before.requests) / seconds },
      { label: "failed (5xx)", colour: "--bad", of: (now, before, seconds) => (now.failed - before.failed) / seconds },
    ],
  },
  {
    title: "Bytes per second",
    write: bytes,
    least: 1024,
    steps: POWERS,
    series: [
      { label: "in", colour: "--accent", of: (now, before, seconds) => (now.received - before.received) / seconds },
      { label: "out", colour: "--second", of: (now, before, seconds) => (now.sent - before.sent) / seconds },
    ],
  },
  {
    title: "Mean time of an answer",
    write: (value) => (value < 1 ? `${(value * 1000).toFixed(0)} ms` : `${value.toFixed(1)} s`),
    least: 0.01,
    series: [
      { label: "time", colour: "--accent", of: (now, before) => (now.seconds - before.seconds) / Math.max(1, now.requests - before.requests) },
    ],
  },
];

/** What this peer's S3 endpoint did in the last half hour. */
export function Charts(props: { samples: Sample[] }) {
  return (
    <div class="charts">
      {PLOTS.map((plot) => (
        <Chart key={plot.title} plot={plot} samples={props.samples} />
      ))}
    </div>
  );
}

/** Counts as rates between one sample and the next. */
function rates(plot: Plot, samples: Sample[]): UPlot.AlignedData {
  const times = samples.slice(1).map((sample) => sample.at_ms / 1000);
  const lines = plot.series.map((series, line) =>
    samples.slice(1).map((now, at) => {
      const before = samples[at] ?? now;
      const value = Math.max(0, series.of(now, before, Math.max(1, now.at_ms - before.at_ms) / 1000));
      // A second line that lies on the axis only hides the first.
      return value === 0 && line > 0 ? null : value;
    }),
  );
  return [times, ...lines];
}

function Chart(props: { plot: Plot; samples: Sample[] }) {
  const { plot } = props;
  const host = useRef<HTMLDivElement>(null);
  const drawn = useRef<UPlot | undefined>(undefined);
  const data = rates(plot, props.samples);
  const latest = useRef(data);
  latest.current = data;
  useEffect(() => {
    const draw = () => {
      drawn.current?.destroy();
      if (host.current) drawn.current = new UPlot(options(plot, host.current), latest.current, host.current);
    };
    draw();
    const widths = new ResizeObserver(() => drawn.current?.setSize({ width: host.current?.clientWidth ?? 300, height: HEIGHT }));
    if (host.current) widths.observe(host.current);
    window.addEventListener(RECOLOURED, draw);
    return () => {
      window.removeEventListener(RECOLOURED, draw);
      widths.disconnect();
      drawn.current?.destroy();
    };
  }, []);
  useEffect(() => drawn.current?.setData(data), [props.samples]);
  const now = plot.series.map((series, at) => `${series.label} ${plot.write(Number(data[at + 1]?.at(-1) ?? 0))}`);
  return (
    <Card title={plot.title}>
      <ul class="legend">
        {plot.series.map((series, at) => (
          <li key={series.label}>
            <span class="dot" style={{ background: `var(${series.colour})` }} aria-hidden="true" />
            {now[at]}
          </li>
        ))}
      </ul>
      <div ref={host} class="chart" role="img" aria-label={`${plot.title} over the last half hour; now ${now.join(", ")}`} />
    </Card>
  );
}

function options(plot: Plot, host: HTMLElement): UPlot.Options {
  // Only a colour that something has is told as figures, which is all that a canvas takes.
  const colour = (name: string) => {
    host.style.color = `var(${name})`;
    return getComputedStyle(host).color;
  };
  const axis = { stroke: colour("--dim"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
  return {
    width: host.clientWidth,
    height: HEIGHT,
    legend: { show: false },
    cursor: { show: false },
    padding: [8, 8, 0, 0],
    scales: { y: { range: (_, __, most) => [0, Math.max(most * 1.15, plot.least)] } },
    axes: [
      { ...axis, size: 28, space: 70, incrs: MINUTES, values: "{HH}:{mm}" },
      { ...axis, size: 66, space: 34, ...(plot.steps && { incrs: plot.steps }), values: (_, ticks) => ticks.map(plot.write) },
    ],
    series: [
      {},
      ...plot.series.map((series) => ({
        label: series.label,
        stroke: colour(series.colour),
        fill: colour(series.colour).replace(")", ", 0.12)").replace("rgb(", "rgba("),
        width: 1.5,
        points: { show: false },
      })),
    ],
  };
}

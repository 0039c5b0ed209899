import type { Member } from "./api";
import { bytes } from "./format";

const SIZE = 400;
const MIDDLE = SIZE / 2;
/** Beyond this many peers names no longer fit. */
const NAMED = 16;

/** The pool drawn: its peers around it, each with how full it is; those that are away stand apart. */
export function PoolMap(props: { members: Member[] }) {
  const { members } = props;
  const live = members.filter((member) => member.state === "live").length;
  const count = members.length;
  const radius = count > NAMED ? 12 : count > 8 ? 22 : 31;
  const around = count === 1 ? 0 : MIDDLE - radius - 34;
  const places = members.map((member, at) => {
    const angle = (2 * Math.PI * at) / count - Math.PI / 2;
    return { member, x: MIDDLE + around * Math.cos(angle), y: MIDDLE + around * Math.sin(angle) };
  });
  // As high as the peers need, each with its name below.
  const top = Math.min(...places.map(({ y }) => y)) - radius - 6;
  const height = Math.max(...places.map(({ y }) => y)) + radius + 26 - top;
  const here = places.find(({ member }) => member.this_peer);
  if (count === 0) return <div class="map" />;
  return (
    <svg class="map" viewBox={`0 ${top} ${SIZE} ${height}`} role="img" aria-label={`Map of the pool: ${live} of ${count} peers live`}>
      {places.flatMap((one, at) =>
        places.slice(at + 1).map((other) => {
          const away = one.member.state === "absent" || other.member.state === "absent";
          const mine = one === here || other === here;
          return <line key={`${one.member.peer_id}${other.member.peer_id}`} class={away ? "away" : mine ? "mine" : ""} x1={one.x} y1={one.y} x2={other.x} y2={other.y} />;
        }),
      )}
      {places.map(({ member, x, y }) => (
        <Node key={member.peer_id} member={member} x={x} y={y} radius={radius} named={count <= NAMED} />
      ))}
      {count > 2 && (
        <text class="middle" x={MIDDLE} y={MIDDLE}>
          <tspan class="large">
            {live} of {count}
          </tspan>
          <tspan x={MIDDLE} dy="18">
            peers live
          </tspan>
        </text>
      )}
    </svg>
  );
}

function Node(props: { member: Member; x: number; y: number; radius: number; named: boolean }) {
  const { member, x, y, radius } = props;
  const used = member.used_bytes ?? 0;
  const whole = used + (member.free_bytes ?? 0);
  const full = whole > 0 ? used / whole : 0;
  const round = 2 * Math.PI * radius;
  const away = member.state === "absent";
  const what = `${member.name}: ${away ? "absent" : "live"}, ${bytes(used)} stored${member.voter ? ", votes" : ""}`;
  return (
    <g class={`node ${away ? "away" : ""} ${member.this_peer ? "here" : ""}`}>
      <title>{what}</title>
      <circle cx={x} cy={y} r={radius} />
      {!away && full > 0 && (
        <circle class="full" cx={x} cy={y} r={radius} pathLength={round} stroke-dasharray={`${Math.max(3, full * round)} ${round}`} transform={`rotate(-90 ${x} ${y})`} />
      )}
      {props.named && (
        <>
          <text class="inner" x={x} y={y + 4}>
            {away ? "✕" : bytes(used)}
          </text>
          <text x={x} y={y + radius + 17}>
            {member.name.length > 16 ? `${member.name.slice(0, 15)}…` : member.name}
          </text>
        </>
      )}
    </g>
  );
}

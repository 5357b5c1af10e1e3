// @ts-check
/** Which view is in sight, by the address' fragment: it outlives a reload and can be linked to. */

/** @typedef {import("./i18n.js").TextKey} TextKey */

/** @type {{id: string, title: TextKey, icon: string}[]} */
export const PLACES = [
  { id: "live", title: "navLive", icon: "M2 11 H5 L8 4 L12 16 L14.5 9 L16 11 H18" },
  { id: "workers", title: "navWorkers", icon: "M4 4 H16 V8 H4 Z M4 12 H16 V16 H4 Z M7 6 H7.01 M7 14 H7.01" },
  { id: "tasks", title: "navTasks", icon: "M3 5 H5 M8 5 H17 M3 10 H5 M8 10 H17 M3 15 H5 M8 15 H17" },
  { id: "alerts", title: "navAlerts", icon: "M5 13 V9 A5 5 0 0 1 15 9 V13 L16.5 15 H3.5 Z M8.5 17.5 H11.5" },
  { id: "keys", title: "navKeys", icon: "M3 14 A3.5 3.5 0 1 0 9 12 L17 4 M14 7 L16 9 M12 9 L13.5 10.5" },
  { id: "canary", title: "navCanary", icon: "M4 17 V12 Q4 8 8 8 H16 M12.5 4.5 L16 8 L12.5 11.5 M4 3 V8" },
  { id: "audit", title: "navAudit", icon: "M5 3 H15 V17 H5 Z M8 7 H12 M8 10 H12 M8 13 H11" },
];

/** @returns {string} the view that the address asks for, the first one where it names none */
export function currentPlace() {
  const asked = location.hash.replace(/^#\/?/, "");
  return PLACES.some((one) => one.id === asked) ? asked : PLACES[0].id;
}

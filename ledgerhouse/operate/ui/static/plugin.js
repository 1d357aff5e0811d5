// What Airflow's UI loads: a React component whose one element the page is mounted in.
// Airflow gives its own React (globalThis.React) and takes the component from AirflowPlugin.
import { mount } from "./page.js";

const { createElement, useEffect, useRef } = globalThis.React;

globalThis.AirflowPlugin = function Ledgerhouse() {
  const place = useRef(null);
  useEffect(() => mount(place.current), []);
  return createElement("div", { ref: place, style: { height: "100%" } });
};

// The page without Airflow's frame around it: it follows the theme chosen in Airflow.
import { mount } from "./page.js";

const chosen = localStorage.getItem("theme");
const dark = chosen === "dark"
  || (chosen !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
document.documentElement.classList.add(dark ? "dark" : "light");
mount(document.getElementById("page"));

/** The page /: make a scene, see the jobs. */

import { byId } from "./dom";
import { jobList } from "./job-list";
import { newScene } from "./new-scene";
import "./style.css";

const showJob = jobList(byId("jobs"));
newScene(byId("new"), showJob);

/** The page /: make a scene, see the jobs. */

import { byId } from "./dom";
import { door } from "./door";
import { jobList } from "./job-list";
import { newScene } from "./new-scene";
import "./style.css";

void door(byId("main"), byId("nav"), () => newScene(byId("new"), jobList(byId("jobs"))));

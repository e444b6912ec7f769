/**
 * The first view: a photo's own camera.
 *
 * Our files are in COLMAP's axes (x right, y down, z forward, gravity along +y). The viewer turns a splat by 180° about z when it
 * loads it, so a point (x, y, z) is shown at (-x, -y, z): upright, and not mirrored. Cameras take the same turn here.
 */

import type { ExperienceSettings } from "@playcanvas/supersplat-viewer/settings";

export type Vec3 = [number, number, number];

/** One record of cameras.json: centre and camera-to-world rotation (rows), pixels. */
export interface PhotoCamera {
  position: Vec3;
  rotation: [Vec3, Vec3, Vec3];
  fx: number;
  fy: number;
  width: number;
  height: number;
}

const add = (a: Vec3, b: Vec3, scale: number): Vec3 => [a[0] + scale * b[0], a[1] + scale * b[1], a[2] + scale * b[2]];
const dot = (a: Vec3, b: Vec3): number => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const shown = (p: Vec3): Vec3 => [-p[0], -p[1], p[2]];
const degrees = (radians: number): number => (radians * 180) / Math.PI;

/** The way a camera looks: the third column of its rotation. */
export function forward(camera: PhotoCamera): Vec3 {
  return [camera.rotation[0][2], camera.rotation[1][2], camera.rotation[2][2]];
}

/** How far along its axis `camera` passes closest to the others' axes: about where the subject is. */
export function focusDistance(camera: PhotoCamera, others: PhotoCamera[]): number {
  const f = forward(camera);
  const distances: number[] = [];
  for (const other of others) {
    const g = forward(other);
    const between = add(other.position, camera.position, -1);
    const cosine = dot(f, g);
    const sine2 = 1 - cosine * cosine;
    if (sine2 < 0.01) continue; // nearly parallel axes meet nowhere useful
    const t = (dot(between, f) - cosine * dot(between, g)) / sine2;
    if (t > 0) distances.push(t);
  }
  distances.sort((a, b) => a - b);
  return distances[Math.floor(distances.length / 2)] ?? spread(camera, others);
}

function spread(camera: PhotoCamera, others: PhotoCamera[]): number {
  const lengths = others.map((other) => Math.hypot(...add(other.position, camera.position, -1)));
  return Math.max(1e-3, ...lengths) || 1;
}

/**
 * Field of view, degrees, in which the whole photo fits a window of this aspect (width / height).
 *
 * The viewer measures it along the window's longer side.
 */
export function fieldOfView(camera: PhotoCamera, aspect: number): number {
  const x = camera.width / (2 * camera.fx);
  const y = camera.height / (2 * camera.fy);
  const along = aspect > 1 ? Math.max(x, y * aspect) : Math.max(y, x / aspect);
  return degrees(2 * Math.atan(along));
}

/** Position, target and field of view of the viewer's first camera. */
export function firstView(cameras: PhotoCamera[], aspect: number): ExperienceSettings["cameras"][number]["initial"] | null {
  const camera = cameras[0];
  if (!camera) return null;
  const target = add(camera.position, forward(camera), focusDistance(camera, cameras.slice(1)));
  return { position: shown(camera.position), target: shown(target), fov: fieldOfView(camera, aspect) };
}

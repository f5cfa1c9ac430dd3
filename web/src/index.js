export { checkOverlap, checkPicture } from "./check.js";
export { TinysegError } from "./errors.js";
export { Segmenter } from "./segmenter.js";

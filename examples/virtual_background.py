"""A virtual background for a camera: whoever stands out is cut out of every frame, in real time.

    python examples/virtual_background.py                          # camera 0, blurred background, in a window
    python examples/virtual_background.py --background beach.jpg --virtual-camera
    python examples/virtual_background.py film.mp4 --background white --frames 100 --no-window

The window needs opencv-python in place of opencv-python-headless; --virtual-camera needs pyvirtualcam and a loopback
device (v4l2loopback on Linux, OBS elsewhere), which video calls then offer as a camera. q or Esc ends it.
"""

from __future__ import annotations

import argparse
import sys
import time

import cv2

import tinyseg
from tinyseg.cutout import BACKGROUND_HELP, Follower, bgr_frame, cut_out, open_background
from tinyseg.sources import open_source


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", default="0", help="camera number, stream or video (default: 0)")
    parser.add_argument("--background", default="blur", help=BACKGROUND_HELP)
    parser.add_argument("--frames", type=int, help="stop after so many")
    parser.add_argument("--no-window", action="store_true", help="show nothing, only tell how fast it is")
    parser.add_argument("--virtual-camera", action="store_true", help="send the frames to a virtual camera")
    args = parser.parse_args()
    background = open_background(args.background)
    if background is None:
        parser.error("--background none leaves nothing to show; tinyseg cutout writes videos with alpha")
    follower = Follower(tinyseg.load(), tinyseg.salient)
    source = open_source(args.source)
    camera = None
    done, first = 0, 0.0
    try:
        while args.frames is None or done < args.frames:
            frame = source.next_frame()
            if frame is None:
                break
            picture = bgr_frame(frame.pixels, frame.color)
            try:
                cutout = cut_out(picture, follower.step(picture))
                picture = cutout.over(background(picture, cutout))
            except tinyseg.DataError:
                pass  # nobody there: the frame as it is
            if args.virtual_camera:
                if camera is None:
                    import pyvirtualcam  # noqa: PLC0415 - only for this option

                    height, width = picture.shape[:2]
                    camera = pyvirtualcam.Camera(
                        width, height, source.frame_rate or 30, fmt=pyvirtualcam.PixelFormat.BGR
                    )
                camera.send(picture)
            elif not args.no_window:
                try:
                    cv2.imshow("tinyseg", picture)
                    if cv2.waitKey(1) & 0xFF in (ord("q"), 27):
                        break
                except cv2.error:
                    sys.exit(
                        "OpenCV opens no window here: replace opencv-python-headless (pip uninstall -y opencv-python-headless; "
                        "pip install opencv-python), or give --virtual-camera or --no-window"
                    )
            done += 1
            first = first or time.perf_counter()
    except KeyboardInterrupt:
        pass
    finally:
        source.close()
        if camera is not None:
            camera.close()
    if done > 1:
        print(f"{done} frames, {(done - 1) / (time.perf_counter() - first):.1f}/s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except tinyseg.TinysegError as exc:
        sys.exit(str(exc))

/* A camera of Linux (V4L2), a box in the middle of its picture, and what it finds there, frame after frame:
 *
 *   camera MODEL [DEVICE [FRAMES]]        DEVICE /dev/video0, FRAMES 0: until Ctrl-C
 *
 * Frames come as YUYV, which every webcam offers, into four buffers that the driver fills; the newest one is used and what came
 * before it is dropped, so masks are never late. Nothing is allocated in the loop. Not run on a camera yet: there was none.
 * The environment chooses: ENGINE, PRECISION and THREADS as in photo.c, SIZE=640x480.
 */
#define _DEFAULT_SOURCE
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "tinyseg.h"

#define BUFFERS 4

static volatile sig_atomic_t stopped = 0;

static void stop(int signal_number) {
  (void)signal_number;
  stopped = 1;
}

typedef struct camera {
  int handle, width, height, stride;
  unsigned count;
  void *starts[BUFFERS];
  size_t lengths[BUFFERS];
} camera;

static int ask(int handle, unsigned long request, void *argument) {
  int result;
  do result = ioctl(handle, request, argument);
  while (result < 0 && errno == EINTR);
  return result;
}

/* Says what went wrong with the device and what helps; returns 0, for functions that do. */
static int trouble(const char *device, const char *doing) {
  const char *help = errno == EBUSY    ? "another program uses it: close that (fuser -v names it)"
                     : errno == EACCES ? "you may not: sudo usermod -aG video $USER, then log in again"
                     : errno == ENOENT ? "there is no such device: v4l2-ctl --list-devices names those that are there"
                     : errno == ENODEV ? "it was unplugged"
                                       : strerror(errno);
  fprintf(stderr, "camera: %s: %s: %s\n", device, doing, help);
  return 0;
}

static int open_camera(const char *device, int width, int height, camera *c) {
  struct v4l2_capability capability;
  struct v4l2_format format;
  struct v4l2_requestbuffers request;
  enum v4l2_buf_type type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
  unsigned i, able;

  memset(c, 0, sizeof *c);
  c->handle = open(device, O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (c->handle < 0) return trouble(device, "it does not open");
  memset(&capability, 0, sizeof capability);
  if (ask(c->handle, VIDIOC_QUERYCAP, &capability) < 0) return trouble(device, "it is no video device");
  able = capability.capabilities & V4L2_CAP_DEVICE_CAPS ? capability.device_caps : capability.capabilities;
  if (!(able & V4L2_CAP_VIDEO_CAPTURE) || !(able & V4L2_CAP_STREAMING)) {
    fprintf(stderr, "camera: %s takes no pictures; another /dev/video may (v4l2-ctl --list-devices)\n", device);
    return 0;
  }
  memset(&format, 0, sizeof format);
  format.type = type;
  format.fmt.pix.width = (unsigned)width;
  format.fmt.pix.height = (unsigned)height;
  format.fmt.pix.pixelformat = V4L2_PIX_FMT_YUYV;
  format.fmt.pix.field = V4L2_FIELD_NONE;
  if (ask(c->handle, VIDIOC_S_FMT, &format) < 0) return trouble(device, "it takes no format");
  if (format.fmt.pix.pixelformat != V4L2_PIX_FMT_YUYV) {
    fprintf(stderr, "camera: %s offers no YUYV; v4l2-ctl --list-formats-ext shows what it does\n", device);
    return 0;
  }
  c->width = (int)format.fmt.pix.width; /* the nearest that the camera has */
  c->height = (int)format.fmt.pix.height;
  c->stride = (int)format.fmt.pix.bytesperline;
  memset(&request, 0, sizeof request);
  request.count = BUFFERS;
  request.type = type;
  request.memory = V4L2_MEMORY_MMAP;
  if (ask(c->handle, VIDIOC_REQBUFS, &request) < 0) return trouble(device, "it gives no buffers");
  c->count = request.count < BUFFERS ? request.count : BUFFERS;
  for (i = 0; i < c->count; ++i) {
    struct v4l2_buffer buffer;
    memset(&buffer, 0, sizeof buffer);
    buffer.type = type;
    buffer.memory = V4L2_MEMORY_MMAP;
    buffer.index = i;
    if (ask(c->handle, VIDIOC_QUERYBUF, &buffer) < 0) return trouble(device, "it tells of no buffers");
    c->starts[i] = mmap(NULL, buffer.length, PROT_READ | PROT_WRITE, MAP_SHARED, c->handle, (off_t)buffer.m.offset);
    if (c->starts[i] == MAP_FAILED) return trouble(device, "its buffers cannot be mapped");
    c->lengths[i] = buffer.length;
    if (ask(c->handle, VIDIOC_QBUF, &buffer) < 0) return trouble(device, "it takes no buffers");
  }
  return ask(c->handle, VIDIOC_STREAMON, &type) == 0 ? 1 : trouble(device, "it does not start");
}

/* The newest filled buffer; older ones go back to the driver. 1: got one, 0: none came in two seconds, -1: trouble. */
static int newest(const char *device, const camera *c, struct v4l2_buffer *buffer) {
  struct pollfd waiting = {0};
  struct v4l2_buffer next;
  int have = 0;
  waiting.fd = c->handle;
  waiting.events = POLLIN;
  if (poll(&waiting, 1, 2000) <= 0) return 0;
  for (;;) {
    memset(&next, 0, sizeof next);
    next.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
    next.memory = V4L2_MEMORY_MMAP;
    if (ask(c->handle, VIDIOC_DQBUF, &next) < 0) {
      if (errno == EAGAIN) return have;
      trouble(device, "reading a frame");
      return -1;
    }
    if (have && ask(c->handle, VIDIOC_QBUF, buffer) < 0) {
      trouble(device, "giving a buffer back");
      return -1;
    }
    *buffer = next;
    have = 1;
  }
}

static uint8_t clamped(int value) { return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value); }

/* YUYV (ITU-R BT.601, studio range) to RGB. */
static void yuyv_to_rgb(const uint8_t *from, const camera *c, uint8_t *to) {
  int x, y, k;
  for (y = 0; y < c->height; ++y) {
    const uint8_t *row = from + (size_t)y * (size_t)c->stride;
    for (x = 0; x + 1 < c->width; x += 2, row += 4) {
      const int u = row[1] - 128, v = row[3] - 128;
      for (k = 0; k < 2; ++k) {
        const int luma = 298 * (row[2 * k] - 16) + 128;
        *to++ = clamped((luma + 409 * v) >> 8);
        *to++ = clamped((luma - 100 * u - 208 * v) >> 8);
        *to++ = clamped((luma + 516 * u) >> 8);
      }
    }
  }
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

int main(int argc, char **argv) {
  const char *device = argc > 2 ? argv[2] : "/dev/video0", *size = getenv("SIZE"), *threads = getenv("THREADS");
  const long frames = argc > 3 ? atol(argv[3]) : 0;
  tinyseg_options options = {0};
  tinyseg_model *model = NULL;
  tinyseg_session *session = NULL;
  tinyseg_image image = {0};
  tinyseg_prompt prompt = {0};
  tinyseg_mask mask = {0};
  double box[4];
  int width = 640, height = 480, status = 1;
  long done = 0;
  uint8_t *rgb = NULL;
  camera c;

  if (argc < 2 || argc > 4 || (size != NULL && sscanf(size, "%dx%d", &width, &height) != 2)) {
    fprintf(stderr, "usage: [SIZE=640x480] camera MODEL [DEVICE [FRAMES]]\n");
    return 2;
  }
  signal(SIGINT, stop);
  signal(SIGTERM, stop);
  options.size = sizeof options;
  options.engine = getenv("ENGINE");
  options.precision = getenv("PRECISION");
  options.threads = threads != NULL ? atoi(threads) : 0;
  if (tinyseg_open(argv[1], &options, &model) != TINYSEG_OK || tinyseg_session_new(model, &session) != TINYSEG_OK) {
    fprintf(stderr, "camera: %s\n", tinyseg_last_error());
    goto end;
  }
  if (!open_camera(device, width, height, &c)) goto end;
  rgb = malloc((size_t)c.width * (size_t)c.height * 3);
  mask.pixels = malloc((size_t)c.width * (size_t)c.height);
  if (rgb == NULL || mask.pixels == NULL) {
    fprintf(stderr, "camera: there is not enough memory\n");
    goto end;
  }
  image.data = rgb;
  image.width = c.width;
  image.height = c.height;
  image.format = TINYSEG_RGB;
  box[0] = c.width * 0.25;
  box[1] = c.height * 0.25;
  box[2] = c.width * 0.75;
  box[3] = c.height * 0.75;
  prompt.box = box;
  fprintf(stderr, "%s\n%s, %d x %d\n", tinyseg_describe(model), device, c.width, c.height);
  if (tinyseg_warm_up(session, c.width, c.height, 1, 2) != TINYSEG_OK) {
    fprintf(stderr, "camera: %s\n", tinyseg_last_error());
    goto end;
  }
  while (!stopped && (frames == 0 || done < frames)) {
    struct v4l2_buffer buffer;
    const int got = newest(device, &c, &buffer);
    double start;
    if (got < 0) goto end;
    if (got == 0) {
      fprintf(stderr, "camera: %s has given no frame for two seconds\n", device);
      continue;
    }
    start = now();
    yuyv_to_rgb(c.starts[buffer.index], &c, rgb);
    if (ask(c.handle, VIDIOC_QBUF, &buffer) < 0) {
      trouble(device, "giving a buffer back");
      goto end;
    }
    if (tinyseg_run(session, &image, &prompt, 1, TINYSEG_ZOOM_OFF, &mask) != TINYSEG_OK) {
      fprintf(stderr, "camera: %s\n", tinyseg_last_error());
      goto end;
    }
    ++done;
    printf("frame %ld: %ld pixels in %d,%d to %d,%d, score %.3f, %.1f ms\n", done, (long)mask.area, mask.box[0], mask.box[1],
           mask.box[2], mask.box[3], mask.score, now() - start);
    fflush(stdout);
  }
  status = 0;
end:
  tinyseg_session_free(session);
  tinyseg_close(model);
  free(mask.pixels);
  free(rgb);
  return status;
}

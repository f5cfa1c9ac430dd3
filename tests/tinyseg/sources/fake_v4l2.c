// A V4L2 camera that is not there, for machines whose kernel has none: preloaded, it answers for the path in FAKE_V4L2.
// The file that FAKE_V4L2_STATE names says how it is: ok, busy, denied, unplugged, stalled, full. Its frames are YUYV
// 640x480 and 1280x720, stamped 7 ms before they can be had; it offers MJPG and a format that nobody reads too.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { kBuffers = 4, kSize = 1280 * 720 * 2, kMostFiles = 4096 };

static unsigned char is_ours[kMostFiles];
static int memory = -1;             // the buffers; mapped by their offsets
static unsigned char* frames;
static int holder = -1;             // who streams
static unsigned next, count, width = 640, height = 480, format = V4L2_PIX_FMT_YUYV, rate = 30;
static int brightness = 128, automatic = 3, exposure = 100;

static int state_is(const char* name) {
  char text[32] = "";
  FILE* file = fopen(getenv("FAKE_V4L2_STATE"), "r");
  if (file != NULL) {
    if (fgets(text, sizeof(text), file) == NULL) text[0] = 0;
    fclose(file);
  }
  return strcmp(text, name) == 0;
}

static int fail(int error) {
  errno = error;
  return -1;
}

static int open_ours(void) {
  if (state_is("unplugged")) return fail(ENOENT);
  if (state_is("denied")) return fail(EACCES);
  if (memory < 0) {
    memory = memfd_create("frames", 0);
    if (ftruncate(memory, kBuffers * kSize) != 0) abort();
    frames = mmap(NULL, kBuffers * kSize, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
  }
  const int file = dup(memory);
  if (file >= kMostFiles) abort();
  is_ours[file] = 1;
  return file;
}

static int open_any(const char* symbol, const char* path, int flags, mode_t mode) {
  const char* ours = getenv("FAKE_V4L2");
  if (ours != NULL && strcmp(path, ours) == 0) return open_ours();
  int (*real)(const char*, int, ...) = dlsym(RTLD_NEXT, symbol);
  return real(path, flags, mode);
}

#define OPEN(name)                                     \
  int name(const char* path, int flags, ...) {         \
    va_list rest;                                      \
    va_start(rest, flags);                             \
    const mode_t mode = va_arg(rest, mode_t);          \
    va_end(rest);                                      \
    return open_any(#name, path, flags, mode);         \
  }
OPEN(open)
OPEN(open64)

int close(int file) {
  int (*real)(int) = dlsym(RTLD_NEXT, "close");
  if (file >= 0 && file < kMostFiles) {
    if (file == holder) holder = -1;
    is_ours[file] = 0;
  }
  return real(file);
}

static void describe(struct v4l2_pix_format* pixels) {
  pixels->width = width;
  pixels->height = height;
  pixels->pixelformat = format;
  pixels->field = V4L2_FIELD_NONE;
  pixels->bytesperline = 2 * width;
  pixels->sizeimage = 2 * width * height;
}

static int set_format(int file, struct v4l2_pix_format* pixels) {
  if (state_is("busy") || (holder >= 0 && holder != file)) return fail(EBUSY);
  const int large = pixels->width > 640;
  width = large ? 1280 : 640;
  height = large ? 720 : 480;
  format = pixels->pixelformat == V4L2_PIX_FMT_MJPEG ? V4L2_PIX_FMT_MJPEG : V4L2_PIX_FMT_YUYV;
  describe(pixels);
  return 0;
}

static int fill(int file, struct v4l2_buffer* buffer) {
  if (state_is("unplugged")) return fail(ENODEV);
  if (file != holder) return fail(EINVAL);
  usleep(1000000 / rate);
  if (state_is("stalled")) return fail(EAGAIN);
  const unsigned index = next++ % count;
  unsigned char* pixels = frames + index * kSize;
  for (unsigned i = 0; i < width * height; ++i) {
    pixels[2 * i] = 16 + i % width * 200 / width;  // brighter to the right
    pixels[2 * i + 1] = 128;
  }
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  const long long nanoseconds = now.tv_sec * 1000000000LL + now.tv_nsec - 7000000;
  buffer->index = index;
  buffer->length = kSize;
  buffer->m.offset = index * kSize;
  buffer->bytesused = 2 * width * height;
  buffer->timestamp.tv_sec = nanoseconds / 1000000000;
  buffer->timestamp.tv_usec = nanoseconds % 1000000000 / 1000;
  buffer->flags = V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
  buffer->sequence = next;
  return 0;
}

static const unsigned kFormats[] = {V4L2_PIX_FMT_MJPEG, V4L2_PIX_FMT_YUYV, V4L2_PIX_FMT_H264};

static int query_control(struct v4l2_queryctrl* query) {
  const struct {
    unsigned id, type, flags;
    const char* name;
    int minimum, maximum, standard;
  } controls[] = {
      {V4L2_CID_BRIGHTNESS, V4L2_CTRL_TYPE_INTEGER, 0, "Brightness", 0, 255, 128},
      {V4L2_CID_EXPOSURE_AUTO, V4L2_CTRL_TYPE_MENU, 0, "Auto Exposure", 0, 3, 3},
      {V4L2_CID_EXPOSURE_ABSOLUTE, V4L2_CTRL_TYPE_INTEGER, automatic == 1 ? 0 : V4L2_CTRL_FLAG_INACTIVE,
       "Exposure Time, Absolute", 3, 2047, 250},
  };
  const unsigned after = query->id & ~V4L2_CTRL_FLAG_NEXT_CTRL;
  for (unsigned i = 0; i < 3; ++i) {
    if (query->id & V4L2_CTRL_FLAG_NEXT_CTRL ? controls[i].id <= after : controls[i].id != after) continue;
    query->id = controls[i].id;
    query->type = controls[i].type;
    query->flags = controls[i].flags;
    strcpy((char*)query->name, controls[i].name);
    query->minimum = controls[i].minimum;
    query->maximum = controls[i].maximum;
    query->step = 1;
    query->default_value = controls[i].standard;
    return 0;
  }
  return fail(EINVAL);
}

static int control(struct v4l2_control* one, int set) {
  int* value = one->id == V4L2_CID_BRIGHTNESS       ? &brightness
               : one->id == V4L2_CID_EXPOSURE_AUTO ? &automatic
               : one->id == V4L2_CID_EXPOSURE_ABSOLUTE ? &exposure
                                                       : NULL;
  if (value == NULL) return fail(EINVAL);
  if (!set) one->value = *value;
  else if (value == &exposure && automatic != 1) return fail(EACCES);
  else *value = one->value;
  return 0;
}

int ioctl(int file, unsigned long request, ...) {
  va_list rest;
  va_start(rest, request);
  void* argument = va_arg(rest, void*);
  va_end(rest);
  if (file < 0 || file >= kMostFiles || !is_ours[file]) {
    int (*real)(int, unsigned long, void*) = dlsym(RTLD_NEXT, "ioctl");
    return real(file, request, argument);
  }
  request &= 0xffffffff;  // some callers widen it as a signed number
  if (state_is("unplugged")) return fail(ENODEV);
  switch (request) {
    case VIDIOC_QUERYCAP: {
      struct v4l2_capability* all = argument;
      memset(all, 0, sizeof(*all));
      strcpy((char*)all->driver, "fake");
      strcpy((char*)all->card, "Fake camera");
      all->device_caps = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
      all->capabilities = all->device_caps | V4L2_CAP_DEVICE_CAPS;
      return 0;
    }
    case VIDIOC_ENUM_FMT: {
      struct v4l2_fmtdesc* entry = argument;
      if (entry->index >= 3) return fail(EINVAL);
      entry->pixelformat = kFormats[entry->index];
      return 0;
    }
    case VIDIOC_ENUM_FRAMESIZES: {
      struct v4l2_frmsizeenum* entry = argument;
      if (entry->index >= 2) return fail(EINVAL);
      entry->type = V4L2_FRMSIZE_TYPE_DISCRETE;
      entry->discrete.width = entry->index ? 1280 : 640;
      entry->discrete.height = entry->index ? 720 : 480;
      return 0;
    }
    case VIDIOC_ENUM_FRAMEINTERVALS: {
      struct v4l2_frmivalenum* entry = argument;
      if (entry->index >= 2) return fail(EINVAL);
      entry->type = V4L2_FRMIVAL_TYPE_DISCRETE;
      entry->discrete.numerator = 1;
      entry->discrete.denominator =
          entry->index ? 5 : entry->pixel_format == V4L2_PIX_FMT_YUYV && entry->width == 1280 ? 10 : 30;
      return 0;
    }
    case VIDIOC_G_FMT: describe(&((struct v4l2_format*)argument)->fmt.pix); return 0;
    case VIDIOC_TRY_FMT:
    case VIDIOC_S_FMT: return set_format(file, &((struct v4l2_format*)argument)->fmt.pix);
    case VIDIOC_G_PARM:
    case VIDIOC_S_PARM: {
      struct v4l2_captureparm* parameters = &((struct v4l2_streamparm*)argument)->parm.capture;
      if (request == VIDIOC_S_PARM && parameters->timeperframe.denominator > 0)
        rate = parameters->timeperframe.denominator / parameters->timeperframe.numerator;
      parameters->capability = V4L2_CAP_TIMEPERFRAME;
      parameters->timeperframe.numerator = 1;
      parameters->timeperframe.denominator = rate;
      return 0;
    }
    case VIDIOC_QUERYCTRL: return query_control(argument);
    case VIDIOC_G_CTRL: return control(argument, 0);
    case VIDIOC_S_CTRL: return control(argument, 1);
    case VIDIOC_REQBUFS: {
      struct v4l2_requestbuffers* wanted = argument;
      if (wanted->memory != V4L2_MEMORY_MMAP) return fail(EINVAL);
      if (state_is("busy") || (holder >= 0 && holder != file)) return fail(EBUSY);
      if (wanted->count > kBuffers) wanted->count = kBuffers;
      count = wanted->count;
      return 0;
    }
    case VIDIOC_QUERYBUF: {
      struct v4l2_buffer* buffer = argument;
      if (buffer->index >= count) return fail(EINVAL);
      buffer->length = kSize;
      buffer->m.offset = buffer->index * kSize;
      return 0;
    }
    case VIDIOC_QBUF: return 0;
    case VIDIOC_DQBUF: return fill(file, argument);
    case VIDIOC_STREAMON:
      if (state_is("full")) return fail(ENOSPC);
      holder = file;
      next = 0;
      return 0;
    case VIDIOC_STREAMOFF: holder = -1; return 0;
    default: return fail(ENOTTY);
  }
}

/* One photo, one prompt, one mask:
 *
 *   photo MODEL IN.ppm OUT.pgm click X Y              the object under a pixel
 *   photo MODEL IN.ppm OUT.pgm box X0 Y0 X1 Y1        the object in a box
 *
 * IN is a binary PPM (P6), OUT a PGM: 255 in the mask, 0 outside. Any tool makes them, for example OpenCV:
 *   python3 -c "import cv2; cv2.imwrite('photo.ppm', cv2.imread('photo.jpg'))"
 * The environment chooses: ENGINE=onnxruntime or openvino, PRECISION=fp32 or int8, THREADS=2.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tinyseg.h"

static int failed(const char *doing) {
  fprintf(stderr, "photo: %s: %s\n", doing, tinyseg_last_error());
  return 1;
}

/* A number of a PPM header; comments run from # to the end of the line. -1 where there is none. */
static int header_number(FILE *file) {
  int c, value = 0, digits = 0;
  while ((c = getc(file)) != EOF) {
    if (c == '#') {
      while ((c = getc(file)) != EOF && c != '\n') {
      }
    } else if (c >= '0' && c <= '9' && digits < 6) {
      value = 10 * value + (c - '0');
      ++digits;
    } else if (digits > 0) {
      return value; /* the one character behind a number is read with it */
    } else if (c != ' ' && c != '\t' && c != '\n' && c != '\r') {
      break;
    }
  }
  return -1;
}

/* The pixels of a P6 file, NULL if it is none. */
static uint8_t *read_ppm(const char *path, int *width, int *height) {
  uint8_t *pixels = NULL;
  size_t bytes;
  FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
  if (file == NULL) return NULL;
  if (getc(file) == 'P' && getc(file) == '6') {
    *width = header_number(file);
    *height = header_number(file);
    if (*width > 0 && *width <= 16384 && *height > 0 && *height <= 16384 && header_number(file) == 255) {
      bytes = (size_t)*width * (size_t)*height * 3;
      pixels = malloc(bytes);
      if (pixels != NULL && fread(pixels, 1, bytes, file) != bytes) {
        free(pixels);
        pixels = NULL;
      }
    }
  }
  if (file != stdin) fclose(file);
  return pixels;
}

static int write_pgm(const char *path, const uint8_t *mask, int width, int height) {
  size_t i, count = (size_t)width * (size_t)height;
  FILE *file = strcmp(path, "-") == 0 ? stdout : fopen(path, "wb");
  int written;
  if (file == NULL) return 0;
  fprintf(file, "P5\n%d %d\n255\n", width, height);
  for (i = 0; i < count; ++i) putc(mask[i] ? 255 : 0, file);
  written = fflush(file) == 0 && !ferror(file);
  if (file != stdout && fclose(file) != 0) written = 0;
  return written;
}

int main(int argc, char **argv) {
  tinyseg_options options = {0};
  tinyseg_model *model = NULL;
  tinyseg_session *session = NULL;
  tinyseg_image image = {0};
  tinyseg_prompt prompt = {0};
  tinyseg_mask mask = {0};
  double numbers[4] = {0, 0, 0, 0};
  const int on_the_object = 1;
  const char *threads = getenv("THREADS");
  int is_click, is_box, i, failure = 1;
  uint8_t *pixels = NULL;
  char *end;

  is_click = argc == 7 && strcmp(argv[4], "click") == 0;
  is_box = argc == 9 && strcmp(argv[4], "box") == 0;
  if (!is_click && !is_box) {
    fprintf(stderr, "usage: photo MODEL IN.ppm OUT.pgm click X Y\n       photo MODEL IN.ppm OUT.pgm box X0 Y0 X1 Y1\n");
    return 2;
  }
  for (i = 5; i < argc; ++i) {
    numbers[i - 5] = strtod(argv[i], &end);
    if (end == argv[i] || *end != '\0') {
      fprintf(stderr, "photo: %s is no number\n", argv[i]);
      return 1;
    }
  }

  pixels = read_ppm(argv[2], &image.width, &image.height);
  if (pixels == NULL) {
    fprintf(stderr, "photo: %s cannot be read as a binary PPM (P6) of 8 bits\n", argv[2]);
    return 1;
  }
  image.data = pixels;
  image.format = TINYSEG_RGB;
  if (is_click) {
    prompt.points = numbers;
    prompt.labels = &on_the_object;
    prompt.count = 1;
  } else {
    prompt.box = numbers;
  }

  options.size = sizeof options;
  options.engine = getenv("ENGINE");
  options.precision = getenv("PRECISION");
  options.threads = threads != NULL ? atoi(threads) : 0;
  mask.pixels = malloc((size_t)image.width * (size_t)image.height);
  if (mask.pixels == NULL) {
    fprintf(stderr, "photo: there is not enough memory for the mask\n");
  } else if (tinyseg_open(argv[1], &options, &model) != TINYSEG_OK) {
    failed("opening the model");
  } else if (tinyseg_session_new(model, &session) != TINYSEG_OK || tinyseg_embed(session, &image) != TINYSEG_OK) {
    failed("encoding the photo");
  } else if (tinyseg_predict(session, &prompt, TINYSEG_ZOOM_AUTO, &mask, 1) != TINYSEG_OK) {
    failed("asking for a mask");
  } else if (!write_pgm(argv[3], mask.pixels, image.width, image.height)) {
    fprintf(stderr, "photo: %s cannot be written\n", argv[3]);
  } else {
    fprintf(stderr, "%s\n%ld pixels in %d,%d to %d,%d, score %.3f%s\n", tinyseg_describe(model), (long)mask.area, mask.box[0],
            mask.box[1], mask.box[2], mask.box[3], mask.score, mask.zoomed ? ", looked at twice" : "");
    failure = 0;
  }
  tinyseg_session_free(session);
  tinyseg_close(model);
  free(mask.pixels);
  free(pixels);
  return failure;
}

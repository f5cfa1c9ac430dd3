/* steady MODEL: frames of one size with prompts that move, first and second looks; with count_allocations preloaded it prints
 * how many allocations the library made after the first frames. Also a program in C99 that uses every function. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "tinyseg.h"

enum { WIDTH = 200, HEIGHT = 120, PROMPTS = 3 };

static uint8_t frame[HEIGHT][WIDTH][3], masks[PROMPTS][HEIGHT][WIDTH];
static float logits[PROMPTS][128 * 128];

static void draw(int shift) {
  int x, y;
  for (y = 0; y < HEIGHT; ++y) {
    for (x = 0; x < WIDTH; ++x) {
      const int dx = x - 100 - shift, dy = y - 60, in = dx * dx + dy * dy < 900;
      frame[y][x][0] = (uint8_t)(in ? 30 : 150 + (x * 7 + y * 13 + shift) % 9);
      frame[y][x][1] = (uint8_t)(in ? 120 : 90);
      frame[y][x][2] = (uint8_t)(in ? 230 : 40);
    }
  }
}

#define TRY(call)                                                                                        \
  do {                                                                                                   \
    const tinyseg_status status = (call);                                                                \
    if (status != TINYSEG_OK) {                                                                          \
      fprintf(stderr, "%s: %s: %s\n", #call, tinyseg_status_name(status), tinyseg_last_error());         \
      return 1;                                                                                          \
    }                                                                                                    \
  } while (0)

int main(int argc, char **argv) {
  void (*start)(void) = NULL;
  void (*stop)(long *, long *) = NULL;
  tinyseg_options options = {0};
  tinyseg_model *model;
  tinyseg_session *session;
  tinyseg_image image = {0};
  tinyseg_prompt prompts[PROMPTS];
  tinyseg_mask out[PROMPTS] = {{0}};
  double point[2], boxes[2][4];
  const int on = 1;
  long ours = 0, all = 0;
  int i, k, rows, columns, twice = 0;

  if (argc != 2 || tinyseg_abi() != TINYSEG_ABI) return 2;
  *(void **)&start = dlsym(RTLD_DEFAULT, "count_start");
  *(void **)&stop = dlsym(RTLD_DEFAULT, "count_stop");
  options.size = sizeof options;
  options.threads = 1;
  TRY(tinyseg_open(argv[1], &options, &model));
  TRY(tinyseg_session_new(model, &session));
  TRY(tinyseg_warm_up(session, WIDTH, HEIGHT, PROMPTS, 4));
  TRY(tinyseg_grid(model, WIDTH, HEIGHT, &rows, &columns));
  if (rows * columns > 128 * 128) return 3;
  image.data = &frame[0][0][0];
  image.width = WIDTH;
  image.height = HEIGHT;
  image.format = TINYSEG_BGR;
  for (k = 0; k < PROMPTS; ++k) {
    out[k].pixels = &masks[k][0][0];
    out[k].logits = logits[k];
  }
  for (i = 0; i < 12; ++i) {
    const tinyseg_prompt nothing = {0};
    if (i == 4 && start) start();
    draw(i % 5);
    for (k = 0; k < PROMPTS; ++k) prompts[k] = nothing;
    point[0] = 100 + i;
    point[1] = 60;
    prompts[0].points = point; /* one click, which the first answer decides */
    prompts[0].labels = &on;
    prompts[0].count = 1;
    boxes[0][0] = 90 + i;
    boxes[0][1] = 50;
    boxes[0][2] = 120 + i;
    boxes[0][3] = 75;
    prompts[1].box = boxes[0]; /* a small box: a crop alone answers */
    boxes[1][0] = 40 + i;
    boxes[1][1] = 20;
    boxes[1][2] = 160;
    boxes[1][3] = 110;
    prompts[2].box = boxes[1];
    if (i % 2) prompts[2].hint = logits[2]; /* the answer to the last frame */
    TRY(tinyseg_run(session, &image, prompts, PROMPTS, i % 3 ? TINYSEG_ZOOM_AUTO : TINYSEG_ZOOM_OFF, out));
    for (k = 0; k < PROMPTS; ++k) twice += out[k].zoomed;
    TRY(tinyseg_embed(session, &image));
    TRY(tinyseg_predict(session, &prompts[0], TINYSEG_ZOOM_AUTO, out, 3));
  }
  if (stop) stop(&ours, &all);
  printf("allocations %ld of %ld, second looks %d, %s\n", ours, all, twice, tinyseg_describe(model));
  tinyseg_session_free(session);
  tinyseg_close(model);
  return 0;
}

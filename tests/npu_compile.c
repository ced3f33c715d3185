/* Compiles OpenVINO graphs by Intel's NPU compiler, which the Windows wheel alone brings.
 *
 *   compile.exe PLATFORM WEIGHTS.bin BLOB GRAPH.xml [GRAPH.xml ...]
 *
 * Reads nothing of OpenVINO's headers: the few functions of its C interface are looked up in
 * openvino_c.dll, which must lie beside this program. A line a graph: "ok SECONDS BYTES GRAPH" or
 * "no SECONDS GRAPH: REASON". Status 0 unless the library itself is missing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <windows.h>

typedef int (*create_t)(void **);
typedef int (*read_t)(void *, const char *, const char *, void **);
typedef int (*compile_t)(void *, void *, const char *, size_t, void **, ...);
typedef int (*export_t)(void *, const char *);
typedef void (*free_t)(void *);
typedef const char *(*message_t)(void);

static HMODULE library;

static void *found(const char *name) {
  void *address = (void *)GetProcAddress(library, name);
  if (!address) {
    fprintf(stderr, "openvino_c.dll has no %s\n", name);
    exit(2);
  }
  return address;
}

static double now(void) {
  LARGE_INTEGER ticks, rate;
  QueryPerformanceCounter(&ticks);
  QueryPerformanceFrequency(&rate);
  return (double)ticks.QuadPart / (double)rate.QuadPart;
}

static long size_of(const char *path) {
  FILE *file = fopen(path, "rb");
  long size = -1;
  if (file) {
    fseek(file, 0, SEEK_END);
    size = ftell(file);
    fclose(file);
  }
  return size;
}

static void refused(const char *graph, double seconds, const char *why) {
  printf("no %.2f %s: ", seconds, graph);
  for (; why && *why; why++) putchar(*why == '\n' || *why == '\r' ? ' ' : *why);
  putchar('\n');
}

int main(int count, char **words) {
  void *core;
  if (count < 5) return fprintf(stderr, "PLATFORM WEIGHTS BLOB GRAPH...\n"), 2;
  library = LoadLibraryA("openvino_c.dll");
  if (!library) return fprintf(stderr, "openvino_c.dll cannot be loaded: %lu\n", GetLastError()), 2;
  message_t message = found("ov_get_last_err_msg");
  free_t free_model = found("ov_model_free"), free_compiled = found("ov_compiled_model_free");
  if (((create_t)found("ov_core_create"))(&core)) return fprintf(stderr, "%s\n", message()), 2;
  for (int i = 4; i < count; i++) {
    void *model = NULL, *compiled = NULL;
    double start = now();
    remove(words[3]);
    if (((read_t)found("ov_core_read_model"))(core, words[i], words[2], &model)) {
      refused(words[i], now() - start, message());
      continue;
    }
    int status = ((compile_t)found("ov_core_compile_model"))(
        core, model, "NPU", 6, &compiled, "NPU_PLATFORM", words[1], "NPU_COMPILER_TYPE", "PLUGIN",
        "INFERENCE_PRECISION_HINT", "f16");
    if (!status) status = ((export_t)found("ov_compiled_model_export_model"))(compiled, words[3]);
    double seconds = now() - start;
    if (status)
      refused(words[i], seconds, message());
    else
      printf("ok %.2f %ld %s\n", seconds, size_of(words[3]), words[i]);
    fflush(stdout);
    if (compiled) free_compiled(compiled);
    free_model(model);
  }
  return 0;
}

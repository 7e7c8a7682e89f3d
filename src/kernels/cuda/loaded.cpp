// NVIDIA's libraries, opened when one of their functions is first called: the program starts on machines that have none.
//
// Each function named in loaded.inc is defined here as a jump to the one of the library. Where the library is not there,
// it gives the library's error: 100 (no device) from the driver, 1 from the others.
// On other processors than x86-64 this file is empty, and the program is linked with the libraries.
#if defined(__x86_64__)

#include <cstdint>
#include <cstring>
#include <dlfcn.h>

namespace {

struct Library {
  const char *name;
  int (*missing)();
};

// As the assembly below lays it out.
struct Function {
  void *at;
  const char *name;
  const Library *library;
};

int no_device() { return 100; }
int failed() { return 1; }
const char *no_text() { return "the library is not there"; }

} // namespace

extern "C" {
__attribute__((used, visibility("hidden"))) extern const Library sft_library_cuda = {"libcuda.so.1", no_device};
__attribute__((used, visibility("hidden"))) extern const Library sft_library_cublas = {"libcublas.so.13", failed};
__attribute__((used, visibility("hidden"))) extern const Library sft_library_cublasLt = {"libcublasLt.so.13", failed};
__attribute__((used, visibility("hidden"))) extern const Library sft_library_curand = {"libcurand.so.10", failed};
__attribute__((used, visibility("hidden"))) extern const Library sft_library_nccl = {"libnccl.so.2", failed};

// The address to jump to, kept for the next call. Two threads that come at once find the same.
__attribute__((used, visibility("hidden"))) void *sft_find(Function *function) {
  const Library &library = *function->library;
  void *handle = dlopen(library.name, RTLD_NOW);
  void *found = handle ? dlsym(handle, function->name) : nullptr;
  if (!found) {
    const size_t length = strlen(function->name);
    const bool text = length > 6 && !strcmp(function->name + length - 6, "String") && strncmp(function->name, "cuGet", 5);
    found = text ? reinterpret_cast<void *>(no_text) : reinterpret_cast<void *>(library.missing);
  }
  __atomic_store_n(&function->at, found, __ATOMIC_RELEASE);
  return found;
}
}

// Keeps the arguments in their registers while the function is looked for, then goes on to it. r11 is free between functions.
asm(R"(
.text
sft_load:
  pushq %rax
  pushq %rdi
  pushq %rsi
  pushq %rdx
  pushq %rcx
  pushq %r8
  pushq %r9
  subq $128, %rsp
  movups %xmm0, 0(%rsp)
  movups %xmm1, 16(%rsp)
  movups %xmm2, 32(%rsp)
  movups %xmm3, 48(%rsp)
  movups %xmm4, 64(%rsp)
  movups %xmm5, 80(%rsp)
  movups %xmm6, 96(%rsp)
  movups %xmm7, 112(%rsp)
  movq %r11, %rdi
  call sft_find
  movq %rax, %r11
  movups 0(%rsp), %xmm0
  movups 16(%rsp), %xmm1
  movups 32(%rsp), %xmm2
  movups 48(%rsp), %xmm3
  movups 64(%rsp), %xmm4
  movups 80(%rsp), %xmm5
  movups 96(%rsp), %xmm6
  movups 112(%rsp), %xmm7
  addq $128, %rsp
  popq %r9
  popq %r8
  popq %rcx
  popq %rdx
  popq %rsi
  popq %rdi
  popq %rax
  jmp *%r11
)");

#define FUNCTION(library, name)                                                                                        \
  asm(".section .rodata\n"                                                                                             \
      "sft_name_" #name ": .asciz \"" #name "\"\n"                                                                     \
      ".data\n.balign 8\n"                                                                                             \
      "sft_at_" #name ": .quad 0, sft_name_" #name ", sft_library_" #library "\n"                                      \
      ".text\n.globl " #name "\n.hidden " #name "\n.type " #name ", @function\n" #name ":\n"                           \
      "movq sft_at_" #name "(%rip), %r11\n"                                                                            \
      "testq %r11, %r11\n"                                                                                             \
      "jz 1f\n"                                                                                                        \
      "jmp *%r11\n"                                                                                                    \
      "1: leaq sft_at_" #name "(%rip), %r11\n"                                                                         \
      "jmp sft_load\n");
#include "loaded.inc"

#endif

/* Choice of path, and what does not depend on it. */
#include "lpcnet_kernel.h"

#include <stddef.h>
#include <string.h>

#ifdef LPCNET_X86
#include <xmmintrin.h>
#endif

const LpcnetPath *lpcnet_path(int index) {
    const LpcnetPath *known[4];
    int count = 0;
#ifdef LPCNET_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vnni"))
        known[count++] = &lpcnet_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        known[count++] = &lpcnet_avx2;
#endif
    known[count++] = &lpcnet_portable;
    return index >= 0 && index < count ? known[index] : NULL;
}

void lpcnet_reset(LpcnetState *state, uint64_t seed) {
    memset(state, 0, sizeof *state);
    state->excitation = LPCNET_LEVELS / 2;
    /* splitmix64: any seed, zero too, gives a good non-zero start for the xorshift generator */
    uint64_t mixed = seed + 0x9e3779b97f4a7c15u;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebu;
    state->random = (mixed ^ (mixed >> 31)) | 1;
}

/* Silence decays towards denormals, which cost a hundred times a normal number on many cores. */
#if defined(LPCNET_X86)
uint64_t lpcnet_denormals_off(void) {
    const unsigned int saved = _mm_getcsr();
    _mm_setcsr(saved | 0x8040); /* flush to zero, denormals are zero */
    return saved;
}
void lpcnet_denormals_restore(uint64_t saved) { _mm_setcsr((unsigned int)saved); }
#elif defined(__aarch64__)
uint64_t lpcnet_denormals_off(void) {
    uint64_t saved;
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved));
    __asm__ volatile("msr fpcr, %0" : : "r"(saved | (1u << 24))); /* FZ */
    return saved;
}
void lpcnet_denormals_restore(uint64_t saved) {
    __asm__ volatile("msr fpcr, %0" : : "r"(saved));
}
#else
uint64_t lpcnet_denormals_off(void) { return 0; }
void lpcnet_denormals_restore(uint64_t saved) { (void)saved; }
#endif

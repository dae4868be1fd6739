#ifndef LPCNET_TARGET_H
#define LPCNET_TARGET_H

/* Code between TARGET_BEGIN and TARGET_END may use the instruction sets named, whatever the
 * flags of the build; only call it where lpcnet_path() offers it. */
#define TARGET_PRAGMA(x) _Pragma(#x)
#if defined(__clang__)
#define TARGET_BEGIN(names) \
    TARGET_PRAGMA(clang attribute push(__attribute__((target(names))), apply_to = function))
#define TARGET_END TARGET_PRAGMA(clang attribute pop)
#else
#define TARGET_BEGIN(names) TARGET_PRAGMA(GCC push_options) TARGET_PRAGMA(GCC target(names))
#define TARGET_END TARGET_PRAGMA(GCC pop_options)
#endif

#endif

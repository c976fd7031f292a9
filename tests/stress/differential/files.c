/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Text of installed binaries: executable segments, mapped for reading. */
#include "differential.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define LIB "/usr/lib/x86_64-linux-gnu/"

static const char *const paths[] = {
	LIB "libc.so.6", LIB "libm.so.6", LIB "libcrypto.so.3", LIB "libstdc++.so.6",
	"/usr/bin/python3.11", "/usr/bin/perl", LIB "libLLVM-14.so.1", "/usr/lib/gcc/x86_64-linux-gnu/12/cc1",
	LIB "libsqlite3.so.0", LIB "libgmp.so.10",
	LIB "libz.so.1", LIB "libx265.so.199", LIB "libaom.so.3", LIB "libdav1d.so.6", LIB "libSvtAv1Enc.so.1",
	LIB "libx264.so.164", LIB "libavcodec.so.59", LIB "libvpx.so.7", LIB "libz3.so.4", LIB "libLLVM-15.so.1",
	LIB "libgfortran.so.5", LIB "libgnat-12.so", LIB "libgnutls.so.30", LIB "libgcrypt.so.20",
	LIB "blas/libblas.so.3", LIB "lapack/liblapack.so.3", LIB "libopenblas.so.0", LIB "libfftw3.so.3",
	LIB "libpython3.11.so.1.0", LIB "libperl.so.5.36", "/usr/bin/openssl", "/usr/bin/gdb", "/usr/bin/git",
	"/lib64/libc.so.6", "/lib64/libm.so.6", "/lib64/libcrypto.so.3", "/lib64/libstdc++.so.6", "/usr/bin/python3",
	LIB "ld-linux-x86-64.so.2", LIB "libgcc_s.so.1", LIB "libbpf.so.1", LIB "libvorbis.so.0", LIB "libzstd.so.1",
};

static void open_file(struct files *files, const char *path)
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	const Elf64_Ehdr *header;
	const Elf64_Phdr *segment;
	const uint8_t *file;
	struct stat info;
	size_t i;

	if (fd < 0)
		return;
	file = fstat(fd, &info) == 0 && (size_t)info.st_size > sizeof(*header) ?
		       mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
	close(fd);
	if (file == MAP_FAILED)
		return;
	header = (const Elf64_Ehdr *)file;
	if (memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 || header->e_machine != EM_X86_64) {
		munmap((void *)(uintptr_t)file, (size_t)info.st_size);
		return;
	}
	files->count++;
	segment = (const Elf64_Phdr *)(file + header->e_phoff);
	for (i = 0; i < header->e_phnum; i++, segment++) {
		if (segment->p_type != PT_LOAD || !(segment->p_flags & PF_X) ||
		    files->text_count == ARRAY_SIZE(files->texts))
			continue;
		files->texts[files->text_count].bytes = file + segment->p_offset;
		files->texts[files->text_count++].size = segment->p_filesz;
	}
}

void files_open(struct files *files)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(paths); i++)
		open_file(files, paths[i]);
}

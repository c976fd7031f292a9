/* SPDX-License-Identifier: LGPL-2.1-or-later */
#define _GNU_SOURCE
#include "uprobe.h"

#include <errno.h>
#include <link.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Linux 6.6; headers may be older. */
#define ATTACH_TYPE_UPROBE_MULTI 48
#define LINK_CREATE 28

struct link_create_uprobe_multi {
	uint32_t program;
	uint32_t target;
	uint32_t attach_type;
	uint32_t flags;
	uint64_t path;
	uint64_t offsets;
	uint64_t ref_ctr_offsets;
	uint64_t cookies;
	uint32_t count;
	uint32_t multi_flags;
	uint32_t pid;
	uint32_t padding;
};

struct lookup {
	uintptr_t address;
	uint64_t *offset;
};

static int lookup_in(struct dl_phdr_info *info, size_t size, void *data)
{
	const struct lookup *lookup = data;

	(void)size;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
		uintptr_t distance = lookup->address - (info->dlpi_addr + segment->p_vaddr);

		if (segment->p_type == PT_LOAD && distance < segment->p_filesz) {
			*lookup->offset = segment->p_offset + distance;
			return 1;
		}
	}
	return 0;
}

bool file_offset(uintptr_t address, uint64_t *offset)
{
	struct lookup lookup = {address, offset};

	return dl_iterate_phdr(lookup_in, &lookup) == 1;
}

int uprobe_program(bool multi, const char **reason)
{
	static const struct bpf_insn code[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = 0},
		{.code = BPF_JMP | BPF_EXIT},
	};
	union bpf_attr attr;
	int program;

	memset(&attr, 0, sizeof(attr));
	attr.prog_type = BPF_PROG_TYPE_KPROBE;
	attr.insns = (uint64_t)(uintptr_t)code;
	attr.insn_cnt = sizeof(code) / sizeof(*code);
	attr.license = (uint64_t)(uintptr_t)"GPL";
	attr.expected_attach_type = multi ? ATTACH_TYPE_UPROBE_MULTI : 0;
	program = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof(attr));
	if (program < 0)
		*reason = errno == EPERM ? "the kernel refuses BPF programs to this user" :
					   "the kernel refuses the BPF program";
	return program;
}

/* Number of the event type, negative when there is none. */
static int uprobe_type(void)
{
	FILE *file = fopen("/sys/bus/event_source/devices/uprobe/type", "r");
	int type = -1;

	if (file && fscanf(file, "%d", &type) != 1)
		type = -1;
	if (file)
		fclose(file);
	return type;
}

int uprobe_attach(const char *path, uint64_t offset, bool at_return, int program, const char **reason)
{
	static int type = -2;
	struct perf_event_attr attr;
	int event;

	if (type == -2)
		type = uprobe_type();
	*reason = "the kernel has no uprobe events";
	if (type < 0)
		return -1;
	memset(&attr, 0, sizeof(attr));
	attr.size = sizeof(attr);
	attr.type = (uint32_t)type;
	attr.config = at_return;
	attr.config1 = (uint64_t)(uintptr_t)path;
	attr.config2 = offset;
	attr.inherit = program < 0;
	event = (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
	if (event < 0) {
		*reason = errno == EPERM || errno == EACCES ? "the kernel refuses uprobes to this user" :
							     "the kernel refuses the uprobe";
		return -1;
	}
	if (program >= 0 && ioctl(event, PERF_EVENT_IOC_SET_BPF, program)) {
		*reason = "the kernel refuses the BPF program for a uprobe";
		close(event);
		return -1;
	}
	return event;
}

int uprobe_multi_attach(int program, const char *path, const uint64_t *offsets, size_t count)
{
	struct link_create_uprobe_multi attr = {
		.program = (uint32_t)program,
		.attach_type = ATTACH_TYPE_UPROBE_MULTI,
		.path = (uint64_t)(uintptr_t)path,
		.offsets = (uint64_t)(uintptr_t)offsets,
		.count = (uint32_t)count,
		.pid = (uint32_t)getpid(),
	};

	return (int)syscall(SYS_bpf, LINK_CREATE, &attr, sizeof(attr));
}

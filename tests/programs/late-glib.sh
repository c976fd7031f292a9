#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# A GLib program: its threads gmain and pool-*, which block every signal, tasks, timers and children.
program="cc pkg-config" package="gcc pkg-config libglib2.0-dev" modules=main,libc.so.6,libglib-2.0.so.0

prepare()
{
	cat >load.c <<-'END'
		#include <gio/gio.h>

		static GMainLoop *loop;
		static guint left;
		static guint64 sum, wanted;

		static void work_all(void);

		static void work(GTask *task, gpointer source, gpointer data, GCancellable *cancellable)
		{
			guint hash = 5381;
			char *text = g_strdup_printf("%u", GPOINTER_TO_UINT(data));

			for (int i = 0; i < 100; i++) {
				char *twice = g_strconcat(text, "/", text, NULL);

				hash = hash * 33 + g_str_hash(twice);
				g_free(twice);
			}
			g_free(text);
			g_task_return_int(task, hash);
		}

		static void done(GObject *source, GAsyncResult *result, gpointer data)
		{
			sum += (guint64)g_task_propagate_int(G_TASK(result), NULL);
			if (--left != 0)
				return;
			if (wanted == 0)
				wanted = sum;
			else if (sum != wanted)
				g_print("%" G_GUINT64_FORMAT "\n", sum);
			if (g_file_test("report.over", G_FILE_TEST_EXISTS))
				g_main_loop_quit(loop);
			else
				work_all();
		}

		static void work_all(void)
		{
			sum = 0;
			left = 4000;
			for (guint i = 0, count = left; i < count; i++) {
				GTask *task = g_task_new(NULL, NULL, done, NULL);

				g_task_set_task_data(task, GUINT_TO_POINTER(i), NULL);
				g_task_run_in_thread(task, work);
				g_object_unref(task);
			}
		}

		static gboolean spawn(gpointer data)
		{
			char *arguments[] = { "/bin/true", NULL };

			g_spawn_sync(NULL, arguments, NULL, 0, NULL, NULL, NULL, NULL, NULL, NULL);
			return G_SOURCE_CONTINUE;
		}

		int main(void)
		{
			GSubprocess *first = g_subprocess_new(0, NULL, "/bin/true", NULL);

			loop = g_main_loop_new(NULL, FALSE);
			g_subprocess_wait(first, NULL, NULL);
			g_timeout_add(20, spawn, NULL);
			work_all();
			g_main_loop_run(loop);
			g_print("%" G_GUINT64_FORMAT "\n", wanted);
			return 0;
		}
	END
	pkg-config --exists gio-2.0 || { echo "there is no GLib: apt-get install $package"; return 77; }
	cc -O1 -w load.c -o load $(pkg-config --cflags --libs gio-2.0)
}

workload()
{
	(late ./load)
}

. "$(dirname "$0")/late-driver.sh"

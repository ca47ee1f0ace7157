/* Domains' configurations for xl: what is asked for, with any name and path, and what Xen has not is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "vm/xen.h"

static struct machine_plan example(void)
{
    return (struct machine_plan){
        .search_path = "/usr/bin",
        .name = "debian",
        .folder = "/scratch",
        .disk = "/mnt/debian",
        .overlay = "/scratch/overlay.qcow2",
        .memory_bytes = 512 * MIB,
        .cpu_count = 2,
        .reboot_ends = true,
    };
}

static void expect(const struct machine_plan *plan, enum xen_type type, const char *wanted)
{
    char *text = xen_configuration(plan, type, "circular-debian");

    assert_non_null(text);
    assert_string_equal(text, wanted);
    free(text);
}

static void a_pv_guest_is_booted_by_grub_from_its_own_disk(void **state)
{
    struct machine_plan plan = example();

    (void)state;
    expect(&plan, XEN_PV,
           "name = \"circular-debian\"\n"
           "type = \"pv\"\n"
           "kernel = \"/usr/lib/grub-xen/grub-x86_64-xen.bin\"\n"
           "memory = 512\n"
           "vcpus = 2\n"
           "disk = [\n"
           "  \"format=qcow2,vdev=xvda,access=rw,backendtype=qdisk,target=/scratch/overlay.qcow2\",\n"
           "]\n"
           "vif = []\n"
           "on_poweroff = \"destroy\"\n"
           "on_reboot = \"destroy\"\n"
           "on_crash = \"destroy\"\n");
}

static void a_pvh_guest_has_its_own_grub_and_may_have_a_bridge(void **state)
{
    struct machine_plan plan = example();

    (void)state;
    plan.net = MACHINE_NET_BRIDGE;
    plan.bridge = "xenbr0";
    plan.mac = "52:54:00:12:34:56";
    plan.reboot_ends = false;
    expect(&plan, XEN_PVH,
           "name = \"circular-debian\"\n"
           "type = \"pvh\"\n"
           "kernel = \"/usr/lib/grub-xen/grub-i386-xen_pvh.bin\"\n"
           "memory = 512\n"
           "vcpus = 2\n"
           "disk = [\n"
           "  \"format=qcow2,vdev=xvda,access=rw,backendtype=qdisk,target=/scratch/overlay.qcow2\",\n"
           "]\n"
           "vif = [ \"bridge=xenbr0,mac=52:54:00:12:34:56\" ]\n"
           "on_poweroff = \"destroy\"\n"
           "on_reboot = \"restart\"\n"
           "on_crash = \"destroy\"\n");
}

static void an_hvm_guest_has_firmware_and_cd_roms(void **state)
{
    struct machine_plan plan = example();

    (void)state;
    plan.iso = "/srv/rescue.iso";
    plan.firmware = MACHINE_UEFI;
    plan.nested = true;
    expect(&plan, XEN_HVM,
           "name = \"circular-debian\"\n"
           "type = \"hvm\"\n"
           "memory = 512\n"
           "vcpus = 2\n"
           "disk = [\n"
           "  \"format=qcow2,vdev=hda,access=rw,backendtype=qdisk,target=/scratch/overlay.qcow2\",\n"
           "  \"format=raw,vdev=hdc,access=ro,devtype=cdrom,target=/srv/rescue.iso\",\n"
           "]\n"
           "vif = []\n"
           "boot = \"dc\"\n"
           "firmware = \"ovmf\"\n"
           "nestedhvm = 1\n"
           "serial = \"pty\"\n"
           "vnc = 0\n"
           "nographic = 1\n"
           "on_poweroff = \"destroy\"\n"
           "on_reboot = \"destroy\"\n"
           "on_crash = \"destroy\"\n");
    plan = example();
    plan.disk = "/mnt/x.iso";
    plan.disk_is_iso = true;
    expect(&plan, XEN_HVM,
           "name = \"circular-debian\"\n"
           "type = \"hvm\"\n"
           "memory = 512\n"
           "vcpus = 2\n"
           "disk = [\n"
           "  \"format=raw,vdev=hdc,access=ro,devtype=cdrom,target=/mnt/x.iso\",\n"
           "]\n"
           "vif = []\n"
           "boot = \"d\"\n"
           "serial = \"pty\"\n"
           "vnc = 0\n"
           "nographic = 1\n"
           "on_poweroff = \"destroy\"\n"
           "on_reboot = \"destroy\"\n"
           "on_crash = \"destroy\"\n");
}

/* Nothing that a path holds ends the string that it is in. */
static void paths_are_quoted(void **state)
{
    struct machine_plan plan = example();
    char *text;

    (void)state;
    plan.overlay = "/a \"b\"],\\c\nkernel='x'";
    text = xen_configuration(&plan, XEN_PV, "n");
    assert_non_null(text);
    assert_non_null(strstr(text, ",target=/a \\\"b\\\"],\\\\c\\x0akernel='x'\",\n]\n"));
    free(text);
}

static void a_domain_s_name_is_plain(void **state)
{
    struct machine_plan plan = example();
    char name[XEN_NAME_SIZE], wanted[XEN_NAME_SIZE];

    (void)state;
    plan.name = "a b/../\"c\"\n";
    assert_string_equal(xen_domain_name(&plan, name), "circular-a_b_..__c__");
    plan.name = "debian";
    plan.throw_away = true;
    snprintf(wanted, sizeof(wanted), "circular-debian-%d", (int)getpid());
    assert_string_equal(xen_domain_name(&plan, name), wanted);
}

static void what_xen_has_not_is_refused(void **state)
{
    const struct hypervisor *const all[] = {&hypervisor_xen, &hypervisor_xen_pvh, &hypervisor_xen_hvm};
    struct machine_forward forward = {2222, 22};
    struct error error;

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct machine_plan plan = example();

        assert_int_equal(all[i]->check(&plan, NULL), 0);
        plan.tpm = true;
        assert_int_equal(all[i]->check(&plan, &error), ERROR_UNSUPPORTED);
        assert_non_null(strstr(error.message, i < 2 ? "not with PV" : "without one in Debian"));
        plan = example();
        plan.forwards = &forward;
        plan.forward_count = 1;
        assert_int_equal(all[i]->check(&plan, NULL), ERROR_UNSUPPORTED);
        plan = example();
        plan.firmware = MACHINE_UEFI;
        assert_int_equal(all[i]->check(&plan, NULL), i < 2 ? ERROR_UNSUPPORTED : 0);
        plan = example();
        plan.nested = true;
        assert_int_equal(all[i]->check(&plan, NULL), i < 2 ? ERROR_UNSUPPORTED : 0);
        plan = example();
        plan.disk_is_iso = true;
        assert_int_equal(all[i]->check(&plan, NULL), i < 2 ? ERROR_UNSUPPORTED : 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pv_guest_is_booted_by_grub_from_its_own_disk),
        cmocka_unit_test(a_pvh_guest_has_its_own_grub_and_may_have_a_bridge),
        cmocka_unit_test(an_hvm_guest_has_firmware_and_cd_roms),
        cmocka_unit_test(paths_are_quoted),
        cmocka_unit_test(a_domain_s_name_is_plain),
        cmocka_unit_test(what_xen_has_not_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

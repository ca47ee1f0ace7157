# shellcheck shell=sh
# A guest of one sector of code, for tests that need a machine but no operating system: make_guest FILE WORD.
# Needs `as` and `ld`; sourced behind common.sh.

# Prints sector 2000 on the serial port; writes "written" over it, reads it back and prints it; prints "ready" and, if
# sector 2001 begins with "w", waits for ever; else ends QEMU with status 33 through isa-debug-exit.
cat >boot.s <<'END'
.code16
.globl _start
_start:
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x7c00, %sp
    movb %dl, drive
    movb $0x42, %ah
    call disk
    movw $0x8000, %si
    call print
    movw $written, %si
    movw $0x8000, %di
    movw $9, %cx
    rep movsb
    movw $0x4300, %ax
    call disk
    movb $0, 0x8000
    movb $0x42, %ah
    call disk
    movw $0x8000, %si
    call print
    movw $2001, packet + 8
    movb $0x42, %ah
    call disk
    movw $ready, %si
    call print
    cmpb $'w', 0x8000
    je wait
    movb $16, %al
    movw $0xf4, %dx
    outb %al, %dx
wait:
    hlt
    jmp wait
disk:
    movb drive, %dl
    movw $packet, %si
    int $0x13
    ret
print:
    lodsb
    testb %al, %al
    jz 2f
    movb %al, %bl
    movw $0x3fd, %dx
1:  inb %dx, %al
    testb $0x20, %al
    jz 1b
    movb %bl, %al
    movw $0x3f8, %dx
    outb %al, %dx
    jmp print
2:  ret
drive:   .byte 0
written: .asciz "written\n"
ready:   .asciz "ready\n"
.balign 4
packet:  .byte 16, 0
         .word 1, 0x8000, 0
         .quad 2000
.org 510
    .word 0xaa55
END
as --32 -o boot.o boot.s
ld -m elf_i386 -Ttext 0x7c00 --oformat binary -e _start -o boot.bin boot.o

make_guest() { # FILE TEXT-OF-SECTOR-2001
    truncate -s 8M "$1"
    dd if=boot.bin of="$1" conv=notrunc status=none
    printf 'from the published disk\n' | dd of="$1" bs=512 seek=2000 conv=notrunc status=none
    printf '%s' "$2" | dd of="$1" bs=512 seek=2001 conv=notrunc status=none
}

# shellcheck shell=sh
# A guest of one sector of code, for tests that need a machine but no operating system: make_guest FILE WORD.
# Needs `as` and `ld`; sourced behind common.sh.

# What both guests begin with: no segments, a stack, and the drive that they were read from.
cat >begin.s <<'END'
.code16
.globl _start
_start:
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x7c00, %sp
    movb %dl, drive
END

# Writes the text at %si on the serial port.
cat >print.s <<'END'
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
END

# Prints sector 2000 on the serial port; writes "written" over it, reads it back and prints it; prints "ready" and, if
# sector 2001 begins with "w", waits for ever; else ends QEMU with status 33 through isa-debug-exit.
cat >boot.s <<'END'
.include "begin.s"
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
.include "print.s"
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

# A guest that goes on reading: prints the text at the beginning of each of COUNT blocks of 64 KiB, one a timer tick,
# which is "block N" for N from 1; then "all read". make_reader FILE COUNT
cat >reader.s <<'ASSEMBLER'
.include "begin.s"
next:
    addl $128, packet + 8
    movb drive, %dl
    movw $packet, %si
    movb $0x42, %ah
    int $0x13
    movw $0x8000, %si
    cmpb $'b', (%si)
    jne end
    call print
    sti
    hlt
    jmp next
end:
    movw $last, %si
    call print
wait:
    hlt
    jmp wait
.include "print.s"
drive:   .byte 0
last:    .asciz "all read\n"
.balign 4
packet:  .byte 16, 0
         .word 1, 0x8000, 0
         .quad 0
.org 510
    .word 0xaa55
ASSEMBLER

make_reader() { # FILE COUNT
    as --32 -o reader.o reader.s
    ld -m elf_i386 -Ttext 0x7c00 --oformat binary -e _start -o reader.bin reader.o
    python3 - "$1" "$2" <<'PROGRAM'
import sys
count = int(sys.argv[2])
with open(sys.argv[1], "wb") as image:
    image.write(open("reader.bin", "rb").read())
    for number in range(1, count + 1):
        image.seek(number * 65536)
        image.write(b"block %d\n\0" % number)
    image.truncate((count + 2) * 65536)
PROGRAM
}

// Go's net.UnixConn with WriteMsgUnix and ReadMsgUnix, which wait in the
// runtime's poller. The command line, the rows and what is counted: see
// plain.c.
package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"
)

const (
	full      = 252
	large     = 65536
	keptLimit = 4000
)

var (
	null    = open("/dev/null")
	data    = make([]byte, large)
	control = make([]byte, syscall.CmsgSpace(full*4))
	kept    []int
	path    string
)

func main() {
	row, role := os.Args[1], os.Args[2]
	if len(os.Args) > 3 {
		path = os.Args[3]
	}
	if role == "other" {
		other(row)
		return
	}
	batch, portion := timer(row), keptLimit
	if row == "full" {
		portion = keptLimit / full
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		left, err := strconv.Atoi(lines.Text())
		check(err)
		units, spent := 0, time.Duration(0)
		for ; left > 0; left -= portion {
			count := portion
			if left < portion {
				count = left
			}
			start := time.Now()
			units += batch(count)
			spent += time.Since(start)
			closeKept()
		}
		fmt.Println(spent.Nanoseconds(), units)
	}
}

// Returns what does so many, and says how many units it moved.
func timer(row string) func(count int) int {
	switch row {
	case "one-at-a-time":
		return oneAtATime(end(3), end(4), 1)
	case "full":
		return oneAtATime(end(3), end(4), full)
	case "in-flight":
		conn := end(3)
		return func(count int) int {
			_, descriptors := takeMessages(conn, count, 1)
			return descriptors
		}
	case "stream":
		conn := end(3)
		return func(count int) int {
			bytes, descriptors := takeMessages(conn, count, large)
			if descriptors != count {
				panic(descriptors)
			}
			return bytes
		}
	case "bytes":
		conn := end(3)
		return func(count int) (units int) {
			ask(conn, count)
			for units < count*large {
				n, err := conn.Read(data)
				check(err)
				units += n
			}
			return
		}
	case "ping-pong":
		conn := end(3)
		return func(count int) (units int) {
			for i := 0; i < count; i++ {
				send(conn, 1, 1)
				_, fds := receive(conn, 1)
				units += 1 + keep(fds)
			}
			return
		}
	case "wake-up":
		return wakeUp(end(3), end(4))
	case "connect":
		return connectClose
	}
	panic("unknown row " + row)
}

func other(row string) {
	switch row {
	case "in-flight":
		give(end(3), 1, 1)
	case "stream":
		give(end(3), large, 1)
	case "bytes":
		give(end(3), large, 0)
	case "ping-pong":
		for conn := end(3); ; closeKept() {
			_, fds := receive(conn, 1)
			send(conn, 1, 1)
			keep(fds)
		}
	case "connect":
		for listener := listen(); ; {
			conn, err := listener.AcceptUnix()
			check(err)
			_, fds := receive(conn, 1)
			send(conn, 1, 0)
			keep(fds)
			closeKept()
			conn.Close()
		}
	case "idle":
		hold(os.Args[4])
	}
}

func oneAtATime(near, far *net.UnixConn, fds int) func(count int) int {
	return func(count int) (units int) {
		for i := 0; i < count; i++ {
			send(near, 1, fds)
			_, received := receive(far, 1)
			units += keep(received)
		}
		return
	}
}

// A goroutine waits, as anything that waits in Go does.
func wakeUp(near, far *net.UnixConn) func(count int) int {
	arrived := make(chan int)
	go func() {
		byte := make([]byte, 1)
		for {
			n, err := near.Read(byte)
			check(err)
			arrived <- n
		}
	}()
	return func(count int) (units int) {
		for i := 0; i < count; i++ {
			send(far, 1, 0)
			units += <-arrived
		}
		return
	}
}

func connectClose(count int) (units int) {
	for i := 0; i < count; i++ {
		conn, err := net.DialUnix("unix", nil, address())
		check(err)
		send(conn, 1, 1)
		n, err := conn.Read(data[:1])
		check(err)
		units += n
		conn.Close()
	}
	return
}

func hold(held string) {
	count, err := strconv.Atoi(held)
	check(err)
	listener := listen()
	for i := 0; i < count; i++ {
		conn, err := listener.AcceptUnix()
		check(err)
		go conn.Read(make([]byte, 1))
	}
	fmt.Println("held")
	select {}
}

func takeMessages(conn *net.UnixConn, count, size int) (bytes, descriptors int) {
	ask(conn, count)
	for bytes < count*size {
		n, fds := receive(conn, size)
		bytes += n
		descriptors += keep(fds)
	}
	return
}

func give(conn *net.UnixConn, size, fds int) {
	count := make([]byte, 4)
	for {
		if _, err := io.ReadFull(conn, count); err == io.EOF {
			return
		} else {
			check(err)
		}
		for left := binary.LittleEndian.Uint32(count); left > 0; left-- {
			send(conn, size, fds)
		}
	}
}

func ask(conn *net.UnixConn, count int) {
	question := make([]byte, 4)
	binary.LittleEndian.PutUint32(question, uint32(count))
	_, err := conn.Write(question)
	check(err)
}

// WriteMsgUnix does not go on after a short write.
func send(conn *net.UnixConn, size, count int) {
	var rights []byte
	if count > 0 {
		fds := make([]int, count)
		for i := range fds {
			fds[i] = null
		}
		rights = syscall.UnixRights(fds...)
	}
	n, _, err := conn.WriteMsgUnix(data[:size], rights, nil)
	check(err)
	if n < size {
		_, err = conn.Write(data[n:size])
		check(err)
	}
}

func receive(conn *net.UnixConn, size int) (int, []int) {
	n, length, _, _, err := conn.ReadMsgUnix(data[:size], control)
	check(err)
	if n == 0 {
		os.Exit(0)
	}
	if length == 0 {
		return n, nil
	}
	messages, err := syscall.ParseSocketControlMessage(control[:length])
	check(err)
	fds, err := syscall.ParseUnixRights(&messages[0])
	check(err)
	return n, fds
}

func keep(fds []int) int {
	kept = append(kept, fds...)
	return len(fds)
}

func closeKept() {
	for _, fd := range kept {
		syscall.Close(fd)
	}
	kept = kept[:0]
}

func end(fd int) *net.UnixConn {
	file := os.NewFile(uintptr(fd), "socket")
	conn, err := net.FileConn(file)
	check(err)
	file.Close()
	return conn.(*net.UnixConn)
}

func listen() *net.UnixListener {
	listener, err := net.ListenUnix("unix", address())
	check(err)
	fmt.Println("ready")
	return listener
}

func address() *net.UnixAddr {
	return &net.UnixAddr{Name: path, Net: "unix"}
}

func open(name string) int {
	fd, err := syscall.Open(name, syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	check(err)
	return fd
}

func check(err error) {
	if err == io.EOF {
		os.Exit(0)
	}
	if err != nil {
		panic(err)
	}
}

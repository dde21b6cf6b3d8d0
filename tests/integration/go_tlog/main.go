// Checks a directory laid out as a C2SP tlog-tiles log with Go's own reading of RFC 6962 and signed notes
// (golang.org/x/mod/sumdb). It shares no code with Tallystick.
//
//	go_tlog <vkey> <log directory> [<older checkpoint file>]
//
// 1. The checkpoint's signature holds under the key, and its origin is the key's name.
// 2. Every entry of the bundles is the leaf at its index, shown by an inclusion proof that tlog.CheckRecord accepts.
// 3. The proofs are made from the tiles, and tlog.TileHashReader checks each tile against the root before it uses it.
// 4. The older checkpoint, if one is named, is a prefix of this tree (tlog.ProveTree and tlog.CheckTree).
package main

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

// tiles reads tiles for tlog: Go names them tile/8/<L>/<N>, C2SP names them tile/<L>/<N>.
type tiles struct{ dir string }

func (t tiles) Height() int                       { return height }
func (t tiles) SaveTiles([]tlog.Tile, [][]byte)   {}
func (t tiles) ReadTiles(names []tlog.Tile) ([][]byte, error) {
	var out [][]byte
	for _, name := range names {
		path := strings.Replace(name.Path(), "tile/8/", "tile/", 1)
		data, err := os.ReadFile(filepath.Join(t.dir, path))
		if err != nil {
			return nil, err
		}
		if len(data) != name.W*tlog.HashSize {
			return nil, fmt.Errorf("%s: %d bytes, want %d hashes", path, len(data), name.W)
		}
		out = append(out, data)
	}
	return out, nil
}

type head struct {
	origin string
	tree   tlog.Tree
}

func openHead(file, vkey string) (head, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return head{}, err
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return head{}, err
	}
	opened, err := note.Open(text, note.VerifierList(verifier))
	if err != nil {
		return head{}, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != verifier.Name() {
		return head{}, fmt.Errorf("%s: not a checkpoint of %s", file, verifier.Name())
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return head{}, err
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return head{}, fmt.Errorf("%s: bad root hash", file)
	}
	h := head{origin: lines[0], tree: tlog.Tree{N: size}}
	copy(h.tree.Hash[:], root)
	return h, nil
}

func checkEntries(dir string, h head, reader tlog.HashReader) (int64, error) {
	for bundle := int64(0); bundle*256 < h.tree.N; bundle++ {
		width := h.tree.N - bundle*256
		if width > 256 {
			width = 256
		}
		path := strings.Replace(tlog.Tile{H: height, L: 0, N: bundle, W: int(width)}.Path(), "tile/8/0/", "tile/entries/", 1)
		data, err := os.ReadFile(filepath.Join(dir, path))
		if err != nil {
			return 0, err
		}
		for i := bundle * 256; i < bundle*256+width; i++ {
			length := binary.BigEndian.Uint16(data)
			entry := data[2 : 2+int(length)]
			data = data[2+int(length):]
			proof, err := tlog.ProveRecord(h.tree.N, i, reader)
			if err != nil {
				return 0, fmt.Errorf("entry %d: %w", i, err)
			}
			if err := tlog.CheckRecord(proof, h.tree.N, h.tree.Hash, i, tlog.RecordHash(entry)); err != nil {
				return 0, fmt.Errorf("entry %d: %w", i, err)
			}
		}
		if len(data) != 0 {
			return 0, fmt.Errorf("%s: %d bytes left over", path, len(data))
		}
	}
	return h.tree.N, nil
}

func run(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("usage: go_tlog <vkey> <log directory> [<older checkpoint file>]")
	}
	h, err := openHead(filepath.Join(args[1], "checkpoint"), args[0])
	if err != nil {
		return err
	}
	reader := tlog.TileHashReader(h.tree, tiles{args[1]})
	count, err := checkEntries(args[1], h, reader)
	if err != nil {
		return err
	}
	if len(args) > 2 {
		old, err := openHead(args[2], args[0])
		if err != nil {
			return err
		}
		proof, err := tlog.ProveTree(h.tree.N, old.tree.N, reader)
		if err != nil {
			return err
		}
		if err := tlog.CheckTree(proof, h.tree.N, h.tree.Hash, old.tree.N, old.tree.Hash); err != nil {
			return err
		}
	}
	fmt.Printf("ok %s %d\n", h.origin, count)
	return nil
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

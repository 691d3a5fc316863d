import java.io.*;
import java.net.*;
import java.nio.ByteBuffer;
import java.nio.channels.*;
import java.util.concurrent.atomic.AtomicLongArray;

/** The Java part of the chaos test; chaos.c says how its programs talk: serve PORT ID, or ask STOP PAUSE WORKERS TARGET... */
public class Chaos {
    static final int PATIENCE = 100_000;

    public static void main(String[] args) throws Exception {
        if (args[0].equals("serve")) {
            serve(Integer.parseInt(args[1]), args[2]);
        } else {
            ask(new File(args[1]), Long.parseLong(args[2]), Integer.parseInt(args[3]), java.util.Arrays.copyOfRange(args, 4, args.length));
        }
    }

    /** A selector, and sockets that don't block. */
    static void serve(int port, String id) throws IOException {
        Selector selector = Selector.open();
        ServerSocketChannel server = ServerSocketChannel.open().bind(new InetSocketAddress(port), 512);
        server.configureBlocking(false);
        server.register(selector, SelectionKey.OP_ACCEPT);
        while (true) {
            selector.select();
            for (SelectionKey key : selector.selectedKeys()) {
                if (key.isAcceptable()) {
                    for (SocketChannel c; (c = server.accept()) != null; ) {
                        c.configureBlocking(false);
                        c.register(selector, SelectionKey.OP_READ);
                    }
                    continue;
                }
                SocketChannel c = (SocketChannel) key.channel();
                try (c) {
                    ByteBuffer line = ByteBuffer.allocate(128).put((id + " ").getBytes());
                    if (c.read(line) > 0) {
                        c.write(line.flip());
                    }
                } catch (IOException e) {
                    // the client's business: it counts what it doesn't get
                }
            }
            selector.selectedKeys().clear();
        }
    }

    /** Blocking sockets, a thread for each worker. */
    static void ask(File stop, long pause, int workers, String[] targets) throws Exception {
        AtomicLongArray counters = new AtomicLongArray(workers);
        Thread[] threads = new Thread[workers];
        for (int i = 0; i < workers; i++) {
            int w = i;
            threads[w] = new Thread(() -> {
                for (int n = w; !stop.exists(); n++) {
                    String[] target = targets[n % targets.length].split("[:=]");
                    long began = System.currentTimeMillis();
                    try (Socket s = new Socket()) {
                        s.connect(new InetSocketAddress(target[0], Integer.parseInt(target[1])), PATIENCE);
                        s.setSoTimeout(PATIENCE);
                        s.getOutputStream().write((n + "\n").getBytes());
                        String answer = new BufferedReader(new InputStreamReader(s.getInputStream())).readLine();
                        if (!(target[2] + " " + n).equals(answer)) {
                            throw new IOException("answer " + answer);
                        }
                        counters.incrementAndGet(w);
                    } catch (IOException e) {
                        System.out.println("failed " + target[0] + " after " + (System.currentTimeMillis() - began) + " ms: " + e);
                    }
                    try {
                        Thread.sleep(pause);
                    } catch (InterruptedException e) {
                        return;
                    }
                }
            });
            threads[w].start();
        }
        Thread telling = new Thread(() -> {
            while (true) {
                System.out.println(line("at", counters));
                try {
                    Thread.sleep(500);
                } catch (InterruptedException e) {
                    return;
                }
            }
        });
        telling.setDaemon(true);
        telling.start();
        long total = 0;
        for (int w = 0; w < workers; w++) {
            threads[w].join();
            total += counters.get(w);
        }
        System.out.println("done " + total);
    }

    static String line(String word, AtomicLongArray counters) {
        StringBuilder b = new StringBuilder(word);
        for (int i = 0; i < counters.length(); i++) {
            b.append(' ').append(counters.get(i));
        }
        return b.toString();
    }
}

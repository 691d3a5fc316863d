import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.AsynchronousSocketChannel;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.util.Arrays;
import java.util.Random;

/**
 * Echoes by the JDK's selector, as Netty and most servers in Java do.
 *
 * <p>{@code java Nio.java serve PORT} returns every byte that it receives, and prints whom it accepts.
 * {@code java Nio.java echo HOST PORT CONNECTIONS BYTES} opens many connections at once without waiting for any, sends random
 * bytes over each, checks what comes back, and prints the addresses of the first one. {@code java Nio.java async HOST PORT}
 * does the same once with an asynchronous channel.
 */
public class Nio {
    public static void main(String[] args) throws Exception {
        switch (args[0]) {
            case "serve" -> serve(Integer.parseInt(args[1]));
            case "echo" -> echo(args[1], Integer.parseInt(args[2]), Integer.parseInt(args[3]), Integer.parseInt(args[4]));
            case "async" -> async(args[1], Integer.parseInt(args[2]));
            default -> throw new IllegalArgumentException(args[0]);
        }
    }

    /** Each client's buffer holds what is on its way back to it. */
    private static void serve(int port) throws IOException {
        Selector selector = Selector.open();
        ServerSocketChannel server = ServerSocketChannel.open();
        server.bind(new InetSocketAddress(port), 256);
        server.configureBlocking(false);
        server.register(selector, SelectionKey.OP_ACCEPT);
        while (true) {
            selector.select();
            for (SelectionKey key : selector.selectedKeys()) {
                if (key.isAcceptable()) {
                    SocketChannel client = server.accept();
                    if (client == null) {
                        continue;
                    }
                    client.configureBlocking(false);
                    client.register(selector, SelectionKey.OP_READ, ByteBuffer.allocate(1 << 16));
                    System.out.println("accepted " + client.getLocalAddress() + " from " + client.getRemoteAddress());
                    continue;
                }
                SocketChannel client = (SocketChannel) key.channel();
                ByteBuffer buffer = (ByteBuffer) key.attachment();
                if (key.isReadable() && client.read(buffer) < 0) {
                    client.close();
                    continue;
                }
                buffer.flip();
                client.write(buffer);
                buffer.compact();
                key.interestOps((buffer.hasRemaining() ? SelectionKey.OP_READ : 0)
                        | (buffer.position() > 0 ? SelectionKey.OP_WRITE : 0));
            }
            selector.selectedKeys().clear();
        }
    }

    /** One connection's bytes, out and back. */
    private record Exchange(ByteBuffer out, ByteBuffer in) {}

    private static void echo(String host, int port, int connections, int bytes) throws IOException {
        byte[] data = new byte[bytes];
        new Random(1).nextBytes(data);
        Selector selector = Selector.open();
        InetSocketAddress address = new InetSocketAddress(InetAddress.getByName(host), port);
        int open = 0;
        for (int i = 0; i < connections; i++) {
            SocketChannel channel = SocketChannel.open();
            channel.configureBlocking(false);
            boolean connected = channel.connect(address);
            channel.register(selector, connected ? SelectionKey.OP_WRITE : SelectionKey.OP_CONNECT,
                    new Exchange(ByteBuffer.wrap(data), ByteBuffer.allocate(bytes)));
            open++;
        }
        boolean shown = false;
        while (open > 0) {
            if (selector.select(30_000) == 0) {
                throw new IOException("nothing happens on " + open + " connections");
            }
            for (SelectionKey key : selector.selectedKeys()) {
                SocketChannel channel = (SocketChannel) key.channel();
                Exchange exchange = (Exchange) key.attachment();
                if (key.isConnectable()) {
                    channel.finishConnect();
                }
                if (!shown) {
                    System.out.println(channel.getLocalAddress() + " " + channel.getRemoteAddress());
                    shown = true;
                }
                if (key.isReadable() && channel.read(exchange.in) < 0) {
                    throw new IOException("closed early, after " + exchange.in.position() + " bytes");
                }
                if (exchange.out.hasRemaining()) {
                    channel.write(exchange.out);
                }
                if (!exchange.in.hasRemaining()) {
                    if (!Arrays.equals(exchange.in.array(), data)) {
                        throw new IOException("other bytes came back");
                    }
                    channel.close();
                    open--;
                    continue;
                }
                key.interestOps(SelectionKey.OP_READ | (exchange.out.hasRemaining() ? SelectionKey.OP_WRITE : 0));
            }
            selector.selectedKeys().clear();
        }
        System.out.println("echoed " + connections);
    }

    private static void async(String host, int port) throws Exception {
        try (AsynchronousSocketChannel channel = AsynchronousSocketChannel.open()) {
            channel.connect(new InetSocketAddress(host, port)).get();
            System.out.println(channel.getLocalAddress() + " " + channel.getRemoteAddress());
            channel.write(ByteBuffer.wrap("hello".getBytes())).get();
            ByteBuffer back = ByteBuffer.allocate(5);
            while (back.hasRemaining() && channel.read(back).get() >= 0) {}
            System.out.println("echoed " + new String(back.array()));
        }
    }
}

import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;

/** An HTTP server of the JDK: {@code java Server.java PORT ID}. */
public class Server {
    public static void main(String[] args) throws Exception {
        byte[] body = (args[1] + "\n").getBytes();
        HttpServer server = HttpServer.create(new InetSocketAddress(Integer.parseInt(args[0])), 0);
        server.createContext("/", exchange -> {
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.start();
    }
}
